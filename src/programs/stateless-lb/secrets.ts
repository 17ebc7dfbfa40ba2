// What must not be shown: log, --debug and --print-config pass through here.
const MASK = "***";
/** What promises a credential wherever it stands in a variable's name, for example in PGPASSWORD. */
const CREDENTIAL_PART =
  /PASSWORD|PASSWD|PASSPHRASE|PASSCODE|SECRET|TOKEN|CREDENTIAL|(API|ACCESS|ACCOUNT|PRIVATE|SIGNING|ENCRYPTION|SSH)_?KEY|(PW|PSK|CREDS?)$/i;
/** Words that do so only when they stand alone: MONKEY, AUTHOR and COMPAT promise nothing. */
const CREDENTIAL_WORD = /(^|_)(PASS|PWD|PW|PAT|PSK|CREDS?|KEY|KEYS|AUTH|AUTHORIZATION|COOKIE|JWT)(_|$)/i;
/** Names that only look like it: what follows says that the value is a number, a place or a working folder. */
const HARMLESS_NAME = /^(NSM_MAX_TOKEN_LIFETIME|PWD|OLDPWD)$/;

/**
 * userinfo of a URL, and once more where its password has a slash; a bearer token; what follows a word that promises a
 * credential, as in connection strings, queries of URLs, YAML and JSON; a JSON web token; a private key in PEM, also with
 * its line breaks escaped. Each is linear in the text: what repeats is bounded, or begins only where a run of its
 * characters does.
 */
const SECRET_TEXT: readonly (readonly [RegExp, string])[] = [
  [/([a-z][a-z0-9+.-]{0,31}:\/\/)[^\s/?#"']*@/gi, `$1${MASK}@`],
  [/([a-z][a-z0-9+.-]{0,31}:\/\/)[^\s/?#"'@:]{0,64}:[^\s"']{0,256}@/gi, `$1${MASK}@`],
  [/\b(Bearer|Basic) {1,8}[\w.~+/=-]{8,}/gi, `$1 ${MASK}`],
  [
    /((?:password|passwd|passphrase|passcode|pwd|secret|token|credentials?|(?:api|access|account|private|signing)[_-]?key)(?:\\?["']\s{0,8}:\s{0,8}\\?["']|\s{0,8}[=:]\s{0,8}\\?["']?(?!:)))(?:[^\s&;,"'{}[\]\\]|\\\\)+/gi,
    `$1${MASK}`,
  ],
  [/(?<![\w-])eyJ[\w-]{8,}\.[\w-]+\.[\w-]*/g, MASK],
  [/(-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----)[^"]*?(-----END [A-Z ]{0,32}PRIVATE KEY-----|(?=")|$)/g, `$1${MASK}`],
];

/** The text with everything replaced that is a credential by its form. JSON stays JSON. */
export function maskText(text: string): string {
  let masked = text;
  for (const [form, replacement] of SECRET_TEXT) masked = masked.replace(form, replacement);
  return masked;
}

/** The value of an environment variable as it may be shown: nothing of it where the name promises a credential. */
export function maskVariable(name: string, value: string): string {
  const isPromised = CREDENTIAL_PART.test(name) || CREDENTIAL_WORD.test(name);
  if (value !== "" && isPromised && !HARMLESS_NAME.test(name)) return MASK;
  return maskText(value);
}
