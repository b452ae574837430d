/**
 * Credentials of a container (Amazon ECS, EKS Pod Identity, Greengrass): one GET at an address that the
 * environment names. It goes over the same transport as everything else, so that an error names the host.
 * Sources: AWS SDKs and Tools Reference Guide, "Container credential provider"; botocore, utils.py
 * ContainerMetadataFetcher.
 */
import { HttpError, messageWithHost } from "../http/http-error.js";
import type { HttpTransport } from "../http/transport.js";
import { type Environment, quoted, variable } from "./config-files.js";
import {
  type AwsCredentials,
  CredentialsError,
  CredentialsMistake,
  checkSecret,
} from "./credentials.js";
import { isLoopback } from "./settings.js";
import { readTokenFile } from "./token-file.js";

const RELATIVE = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const TOKEN_FILE = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
/** Where Amazon ECS gives credentials. */
const ECS_ORIGIN = "http://169.254.170.2";
/** Hosts that plain http may be used for, besides this machine: ECS, EKS Pod Identity. */
const LINK_LOCAL = new Set(["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"]);
const MAX_BODY_BYTES = 256 * 1024;

export function hasContainer(env: Environment): boolean {
  return variable(env, RELATIVE) !== undefined || variable(env, FULL) !== undefined;
}

/** @throws CredentialsMistake, CredentialsError */
export async function containerCredentials(
  env: Environment,
  transport: HttpTransport,
  stallMs: number,
): Promise<AwsCredentials> {
  const { url, from } = addressOf(env);
  const token = tokenOf(env);
  const headers = { accept: "application/json", ...(token && { authorization: token }) };
  const failed = (cause: unknown, words: string) =>
    new CredentialsError(`the AWS credentials of this container (${from}): ${words}`, { cause });
  const response = await transport
    .send({ method: "GET", url: url.href, headers, maxBodyBytes: MAX_BODY_BYTES, stallMs })
    .catch((error: unknown) => {
      const isKnown = error instanceof HttpError;
      throw failed(error, isKnown ? messageWithHost(error) : (error as Error).message);
    });
  const { status } = response;
  if (status !== 200) {
    const cause = { name: `Status${status}`, $metadata: { httpStatusCode: status } };
    throw failed(cause, `${url.host} responded with status ${status}`);
  }
  const fields = parse(response.body);
  const secret = (key: string) => {
    const value = fields[key];
    if (typeof value === "string") return checkSecret(value, `${key} of this container (${from})`);
    throw new CredentialsMistake(`What ${url.host} (${from}) responded with holds no ${key}.`);
  };
  const expiration = new Date(String(fields.Expiration));
  const { AccountId } = fields;
  return {
    accessKeyId: secret("AccessKeyId"),
    secretAccessKey: secret("SecretAccessKey"),
    sessionToken: secret("Token"),
    ...(!Number.isNaN(expiration.getTime()) && { expiration }),
    ...(typeof AccountId === "string" && AccountId !== "" && { accountId: AccountId }),
  };
}

function addressOf(env: Environment): { url: URL; from: string } {
  const relative = variable(env, RELATIVE);
  const from = relative === undefined ? FULL : RELATIVE;
  const text = relative === undefined ? (variable(env, FULL) ?? "") : `${ECS_ORIGIN}${relative}`;
  if (!/^https?:\/\//i.test(text) || !URL.canParse(text)) {
    throw new CredentialsMistake(`${from} is ${quoted(text)}, which is not an http or https URL.`);
  }
  const url = new URL(text);
  const isAllowed =
    url.protocol === "https:" || isLoopback(text) || LINK_LOCAL.has(url.hostname.toLowerCase());
  if (isAllowed) return { url, from };
  throw new CredentialsMistake(
    `${from} names ${quoted(url.host)}, which credentials are fetched from over https only.`,
  );
}

function tokenOf(env: Environment): string | undefined {
  const file = variable(env, TOKEN_FILE);
  if (file === undefined) {
    const token = variable(env, TOKEN);
    return token === undefined ? undefined : checkToken(token, TOKEN);
  }
  const token = readTokenFile(file, TOKEN_FILE);
  return checkToken(token, `The token in ${quoted(file)} (${TOKEN_FILE})`);
}

/** A token may hold spaces: `Bearer …`. */
function checkToken(token: string, from: string): string {
  checkSecret(token.replaceAll(" ", "_"), from);
  return token;
}

function parse(body: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(Buffer.from(body).toString("utf8"));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
