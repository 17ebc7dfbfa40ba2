import { type ChannelCredentials, credentials, ServerCredentials } from "@grpc/grpc-js";

/** How connections are protected. Plain text has to be asked for; mutual TLS with SPIFFE identities gets its place here. */
export type Security = "plain-text";

/** What a client presents and demands. */
export function clientCredentials(security: Security): ChannelCredentials {
  switch (security) {
    case "plain-text":
      return credentials.createInsecure();
  }
}

/** What a server presents and demands. */
export function serverCredentials(security: Security): ServerCredentials {
  switch (security) {
    case "plain-text":
      return ServerCredentials.createInsecure();
  }
}
