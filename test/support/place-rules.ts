/**
 * How region, endpoint and credentials are chosen: a table with one row a rule, and servers that see what was
 * chosen. test/ebs/place.test.ts asks the library, test/e2e/place.test.ts the command line and the AWS CLI.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";

/** What a request shows of its sender. */
export interface Seen {
  /** a, b or c for the servers here; `host:port` for one that was to be reached through the proxy. */
  readonly place: string;
  /** Empty where only the proxy was reached. */
  readonly region?: string;
  readonly key?: string;
  readonly token?: string;
}

export interface Rule {
  readonly rule: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly profile?: string;
  readonly region?: string;
  /** The server that --endpoint-url names. */
  readonly endpoint?: "a" | "b" | "c";
  readonly seen: Seen;
  /**
   * Which AWS CLI follows the same rule: any; version 2, which knows AWS_REGION; one that reads endpoints from
   * its configuration (1.29, 2.13 and later); or none, with the reason.
   */
  readonly cli: "any" | "2" | "endpoints" | { readonly differs: string };
}

const ENV_KEYS = { AWS_ACCESS_KEY_ID: "ENVKEY", AWS_SECRET_ACCESS_KEY: "secret" };
/** Of the profile `default`. */
const DEFAULT = { region: "eu-west-1", key: "DEFAULTKEY" };
const A = { place: "a", ...DEFAULT };
const EMPTY = { differs: "an empty variable is an empty name to it" };

export const RULES: readonly Rule[] = [
  { rule: "the default profile's region and keys", endpoint: "a", seen: A, cli: "any" },
  {
    rule: "AWS_DEFAULT_REGION goes before the file's region",
    env: { AWS_DEFAULT_REGION: "us-west-1" },
    endpoint: "a",
    seen: { ...A, region: "us-west-1" },
    cli: "any",
  },
  {
    rule: "AWS_REGION goes before AWS_DEFAULT_REGION",
    env: { AWS_REGION: "us-west-2", AWS_DEFAULT_REGION: "us-west-1" },
    endpoint: "a",
    seen: { ...A, region: "us-west-2" },
    cli: "2",
  },
  {
    rule: "--region goes before both",
    env: { AWS_REGION: "us-west-2", AWS_DEFAULT_REGION: "us-west-1" },
    region: "sa-east-1",
    endpoint: "a",
    seen: { ...A, region: "sa-east-1" },
    cli: "any",
  },
  {
    rule: "empty AWS_REGION is unset",
    env: { AWS_REGION: "", AWS_DEFAULT_REGION: "us-west-1" },
    endpoint: "a",
    seen: { ...A, region: "us-west-1" },
    cli: EMPTY,
  },
  {
    rule: "empty AWS_DEFAULT_REGION is unset",
    env: { AWS_DEFAULT_REGION: "" },
    endpoint: "a",
    seen: A,
    cli: EMPTY,
  },
  {
    rule: "AWS_PROFILE",
    env: { AWS_PROFILE: "x" },
    endpoint: "a",
    seen: { place: "a", region: "eu-central-1", key: "XKEY" },
    cli: "any",
  },
  {
    rule: "AWS_DEFAULT_PROFILE",
    env: { AWS_DEFAULT_PROFILE: "x" },
    endpoint: "a",
    seen: { place: "a", region: "eu-central-1", key: "XKEY" },
    cli: "any",
  },
  {
    rule: "AWS_PROFILE goes before AWS_DEFAULT_PROFILE",
    env: { AWS_PROFILE: "x", AWS_DEFAULT_PROFILE: "here" },
    endpoint: "a",
    seen: { place: "a", region: "eu-central-1", key: "XKEY" },
    cli: "2",
  },
  {
    rule: "--profile goes before AWS_PROFILE",
    env: { AWS_PROFILE: "here" },
    profile: "x",
    endpoint: "a",
    seen: { place: "a", region: "eu-central-1", key: "XKEY" },
    cli: "any",
  },
  {
    rule: "empty AWS_PROFILE and AWS_DEFAULT_PROFILE are unset",
    env: { AWS_PROFILE: "", AWS_DEFAULT_PROFILE: "" },
    endpoint: "a",
    seen: A,
    cli: EMPTY,
  },
  {
    rule: "keys in the environment go before AWS_PROFILE, its region stays",
    env: { ...ENV_KEYS, AWS_PROFILE: "x" },
    endpoint: "a",
    seen: { place: "a", region: "eu-central-1", key: "ENVKEY" },
    cli: "any",
  },
  {
    rule: "keys in the environment go before the default profile's",
    env: { ...ENV_KEYS, AWS_SESSION_TOKEN: "TOKEN" },
    endpoint: "a",
    seen: { ...A, key: "ENVKEY", token: "TOKEN" },
    cli: "any",
  },
  {
    rule: "--profile goes before keys in the environment",
    env: { ...ENV_KEYS, AWS_SESSION_TOKEN: "TOKEN" },
    profile: "x",
    endpoint: "a",
    seen: { place: "a", region: "eu-central-1", key: "XKEY" },
    cli: "any",
  },
  {
    rule: "empty keys in the environment are unset",
    env: { AWS_ACCESS_KEY_ID: "", AWS_SECRET_ACCESS_KEY: "", AWS_SESSION_TOKEN: "" },
    endpoint: "a",
    seen: A,
    cli: "any",
  },
  {
    rule: "a profile with a space in its name",
    profile: "with space",
    endpoint: "a",
    seen: { place: "a", region: "eu-north-1", key: "SPACEKEY" },
    cli: "any",
  },
  {
    rule: "a profile of both files: credentials goes before config",
    profile: "both",
    endpoint: "a",
    seen: { place: "a", region: "ca-west-1", key: "BOTHKEY", token: "BOTHTOKEN" },
    cli: "any",
  },
  {
    rule: "names in any case, divided by a colon",
    profile: "shout",
    endpoint: "a",
    seen: { place: "a", region: "me-south-1", key: "SHOUTKEY" },
    cli: "any",
  },
  {
    rule: "the keys of credential_process",
    profile: "program",
    endpoint: "a",
    seen: { place: "a", region: "eu-west-3", key: "PROGRAMKEY", token: "PROGRAMTOKEN" },
    cli: "any",
  },
  {
    rule: "credential_process goes before keys in config",
    profile: "program-and-keys",
    endpoint: "a",
    seen: { place: "a", region: "eu-west-3", key: "PROGRAMKEY", token: "PROGRAMTOKEN" },
    cli: "any",
  },
  {
    rule: "keys in credentials go before credential_process",
    profile: "keys-and-program",
    endpoint: "a",
    seen: { place: "a", region: "eu-west-3", key: "KEYSKEY" },
    cli: "any",
  },
  {
    rule: "files named by AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE, with a variable in the path",
    env: {
      AWS_CONFIG_FILE: "~/elsewhere/config",
      AWS_SHARED_CREDENTIALS_FILE: "$HOME/elsewhere/credentials",
    },
    endpoint: "a",
    seen: { place: "a", region: "af-south-1", key: "ELSEWHEREKEY" },
    cli: "any",
  },
  {
    rule: "AWS's own endpoint, by the region",
    profile: "x",
    seen: { place: "ebs.eu-central-1.amazonaws.com:443" },
    cli: "any",
  },
  {
    rule: "the dual-stack endpoint",
    env: { AWS_USE_DUALSTACK_ENDPOINT: "true" },
    profile: "x",
    seen: { place: "ebs.eu-central-1.api.aws:443" },
    cli: "any",
  },
  {
    rule: "the FIPS endpoint",
    env: {
      AWS_USE_FIPS_ENDPOINT: "TRUE",
      AWS_REGION: "us-east-1",
      AWS_DEFAULT_REGION: "us-east-1",
    },
    seen: { place: "ebs-fips.us-east-1.amazonaws.com:443" },
    cli: "any",
  },
  {
    rule: "--profile: its endpoint_url",
    profile: "here",
    seen: { place: "b", region: "ap-south-1", key: "HEREKEY" },
    cli: "endpoints",
  },
  {
    rule: "AWS_PROFILE: its endpoint_url",
    env: { AWS_PROFILE: "here" },
    seen: { place: "b", region: "ap-south-1", key: "HEREKEY" },
    cli: "endpoints",
  },
  {
    rule: "AWS_DEFAULT_PROFILE: its endpoint_url",
    env: { AWS_DEFAULT_PROFILE: "here" },
    seen: { place: "b", region: "ap-south-1", key: "HEREKEY" },
    cli: "endpoints",
  },
  {
    rule: "--profile: no endpoint of AWS_PROFILE's",
    env: { AWS_PROFILE: "here" },
    profile: "x",
    seen: { place: "ebs.eu-central-1.amazonaws.com:443" },
    cli: "endpoints",
  },
  {
    rule: "--profile: its services section goes before its endpoint_url",
    profile: "services",
    seen: { place: "c", region: "ap-south-2", key: "SERVICESKEY" },
    cli: "endpoints",
  },
  {
    rule: "a services section without EBS: the profile's endpoint_url",
    profile: "other-services",
    seen: { place: "b", region: "ap-south-2", key: "OTHERKEY" },
    cli: "endpoints",
  },
  {
    rule: "AWS_ENDPOINT_URL goes before the profile's",
    env: { AWS_ENDPOINT_URL: "{a}" },
    profile: "services",
    seen: { place: "a", region: "ap-south-2", key: "SERVICESKEY" },
    cli: "endpoints",
  },
  {
    rule: "AWS_ENDPOINT_URL_EBS goes before AWS_ENDPOINT_URL",
    env: { AWS_ENDPOINT_URL_EBS: "{a}", AWS_ENDPOINT_URL: "{c}" },
    profile: "here",
    seen: { place: "a", region: "ap-south-1", key: "HEREKEY" },
    cli: "endpoints",
  },
  {
    rule: "--endpoint-url goes before all",
    env: { AWS_ENDPOINT_URL_EBS: "{b}", AWS_ENDPOINT_URL: "{c}" },
    profile: "here",
    endpoint: "a",
    seen: { place: "a", region: "ap-south-1", key: "HEREKEY" },
    cli: "any",
  },
  {
    rule: "empty AWS_ENDPOINT_URL_EBS and AWS_ENDPOINT_URL are unset",
    env: { AWS_ENDPOINT_URL_EBS: "", AWS_ENDPOINT_URL: "" },
    profile: "here",
    seen: { place: "b", region: "ap-south-1", key: "HEREKEY" },
    cli: "endpoints",
  },
  {
    rule: "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: none of the variables' and files'",
    env: { AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: "True", AWS_ENDPOINT_URL: "{c}" },
    profile: "here",
    seen: { place: "ebs.ap-south-1.amazonaws.com:443" },
    cli: "endpoints",
  },
  {
    rule: "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: --endpoint-url stays",
    env: { AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: "true", AWS_ENDPOINT_URL: "{c}" },
    profile: "here",
    endpoint: "a",
    seen: { place: "a", region: "ap-south-1", key: "HEREKEY" },
    cli: "any",
  },
  {
    rule: "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS other than true ignores nothing",
    env: { AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: "false" },
    profile: "here",
    seen: { place: "b", region: "ap-south-1", key: "HEREKEY" },
    cli: "endpoints",
  },
  {
    rule: "ignore_configured_endpoint_urls of a profile",
    profile: "ignores",
    seen: { place: "ebs.ap-south-1.amazonaws.com:443" },
    cli: "endpoints",
  },
];

const CONFIG = `
; a comment, and
# another
[default]
region = eu-west-1

[profile x]
region = eu-central-1

[profile "with space"]
region = eu-north-1

[profile both]
region = us-gov-east-1
aws_access_key_id = WRONGKEY
aws_secret_access_key = secret

[profile shout]
REGION: me-south-1

[profile program]
region = eu-west-3
credential_process = {program}

[profile program-and-keys]
region = eu-west-3
credential_process = {program}
aws_access_key_id = WRONGKEY
aws_secret_access_key = secret

[profile keys-and-program]
region = eu-west-3
credential_process = {program}

[profile here]
region = ap-south-1
endpoint_url = {b}

[profile services]
region = ap-south-2
endpoint_url = {b}
services = mine

[profile other-services]
region = ap-south-2
endpoint_url = {b}
services = not-mine

[profile ignores]
region = ap-south-1
endpoint_url = {b}
ignore_configured_endpoint_urls = true

[services mine]
s3 =
  endpoint_url = {a}
ebs =
  endpoint_url = {c}

[services not-mine]
s3 =
  endpoint_url = {a}
`;

const CREDENTIALS = `
[default]
aws_access_key_id = DEFAULTKEY
aws_secret_access_key = secret
[x]
aws_access_key_id = XKEY
aws_secret_access_key = secret
[with space]
aws_access_key_id = SPACEKEY
aws_secret_access_key = secret
[both]
region = ca-west-1
aws_access_key_id = BOTHKEY
aws_secret_access_key = secret
aws_session_token = BOTHTOKEN
[shout]
AWS_ACCESS_KEY_ID: SHOUTKEY
AWS_SECRET_ACCESS_KEY: secret
[keys-and-program]
aws_access_key_id = KEYSKEY
aws_secret_access_key = secret
[here]
aws_access_key_id = HEREKEY
aws_secret_access_key = secret
[services]
aws_access_key_id = SERVICESKEY
aws_secret_access_key = secret
[other-services]
aws_access_key_id = OTHERKEY
aws_secret_access_key = secret
[ignores]
aws_access_key_id = IGNORESKEY
aws_secret_access_key = secret
`;

const PROGRAM_OUTPUT = {
  Version: 1,
  AccessKeyId: "PROGRAMKEY",
  SecretAccessKey: "secret",
  SessionToken: "PROGRAMTOKEN",
};

/** Three servers that give an empty list and refuse all else, and a proxy that refuses to connect. */
export class Places {
  readonly #servers: readonly Server[];
  readonly #seen: Seen[] = [];
  readonly urls: Readonly<Record<string, string>>;
  readonly proxyUrl: string;

  static async start(): Promise<Places> {
    const servers = [0, 1, 2, 3].map(() => createServer());
    for (const server of servers) {
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    }
    return new Places(servers);
  }

  private constructor(servers: readonly Server[]) {
    this.#servers = servers;
    const urls = servers.map((s) => `http://127.0.0.1:${(s.address() as AddressInfo).port}`);
    const [a, b, c, proxy] = urls as [string, string, string, string];
    this.urls = { a, b, c };
    this.proxyUrl = proxy;
    servers.forEach((server, index) => {
      server.on("request", (request, response) => {
        const { authorization = "", "x-amz-security-token": token } = request.headers;
        const [, key, region] = /Credential=([^/]*)\/\d+\/([^/]*)\//.exec(authorization) ?? [];
        this.#seen.push({
          place: "abc"[index] ?? "proxy",
          ...(region !== undefined && { region }),
          ...(key !== undefined && { key }),
          ...(typeof token === "string" && { token }),
        });
        response.setHeader("content-type", "application/json");
        if (request.method !== "GET" || request.url?.includes("/blocks/")) {
          response.statusCode = 400;
          response.setHeader("x-amzn-errortype", "ValidationException");
        }
        const expiry = Date.now() / 1000 + 3600;
        const list = { Blocks: [], BlockSize: 524288, VolumeSize: 1, ExpiryTime: expiry };
        request.resume().on("end", () => response.end(JSON.stringify(list)));
      });
      server.on("connect", (request, socket) => {
        this.#seen.push({ place: request.url ?? "" });
        socket.on("error", () => {});
        socket.end("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
      });
    });
  }

  /** The first request since the last call, if there was one. */
  take(): Seen | undefined {
    return this.#seen.splice(0)[0];
  }

  /** Writes the configuration that the rules go by. */
  writeHome(home: string): void {
    const program = join(home, "program");
    writeFileSync(program, `#!/bin/sh\necho '${JSON.stringify(PROGRAM_OUTPUT)}'\n`, {
      mode: 0o755,
    });
    mkdirSync(join(home, ".aws"), { recursive: true });
    writeFileSync(join(home, ".aws/config"), this.fill(CONFIG, program));
    writeFileSync(join(home, ".aws/credentials"), CREDENTIALS);
    mkdirSync(join(home, "elsewhere"));
    const [config, credentials] = [CONFIG, CREDENTIALS].map((text) =>
      this.fill(text, program)
        .replace("eu-west-1", "af-south-1")
        .replace("DEFAULTKEY", "ELSEWHEREKEY"),
    ) as [string, string];
    writeFileSync(join(home, "elsewhere/config"), config);
    writeFileSync(join(home, "elsewhere/credentials"), credentials);
  }

  fill(text: string, program = ""): string {
    return text.replace(/\{(\w+)\}/g, (_, name: string) => this.urls[name] ?? program);
  }

  /** The whole environment for a rule: nothing of this machine's own. */
  environment(home: string, { env = {} }: Rule): Record<string, string> {
    const filled = Object.entries(env).map(([name, value]) => [name, this.fill(value)]);
    return {
      PATH: process.env.PATH ?? "",
      HOME: home,
      AWS_EC2_METADATA_DISABLED: "true",
      AWS_MAX_ATTEMPTS: "1",
      AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: "true",
      HTTPS_PROXY: this.proxyUrl,
      ...Object.fromEntries(filled),
    };
  }

  async close(): Promise<void> {
    for (const server of this.#servers) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }
}
