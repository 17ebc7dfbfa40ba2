/**
 * A value that somebody configured breaks a rule. `code` is always `ERR_CONFIG`; the message names the field, the value
 * and what is allowed.
 */
export class ConfigError extends Error {
  readonly code = "ERR_CONFIG";
  readonly field: string;
  readonly value: string;
  readonly rule: string;

  /** @param rule what is wrong or what is allowed, for example `not an IPv4 or IPv6 address` */
  constructor(field: string, value: string, rule: string) {
    super(`${field}: "${value}": ${rule}`);
    this.name = "ConfigError";
    this.field = field;
    this.value = value;
    this.rule = rule;
  }
}
