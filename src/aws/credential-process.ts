/**
 * A program of the user's that prints credentials (`credential_process` of a profile), run by the shell as
 * the SDKs do. Where it fails, its own words are the best explanation there is: the end of what it wrote to
 * standard error goes into the sentence, cleaned and cut. What it wrote to standard output never does, since
 * that may be a secret. Source: AWS SDKs and Tools Reference Guide, "Process credential provider".
 */
import { spawn } from "node:child_process";
import { type AwsCredentials, CredentialsMistake, checkSecret } from "./credentials.js";

/** Most that is read of what the program prints, bytes; credentials are 1 to 2 KB. */
const MAX_OUTPUT_BYTES = 256 * 1024;
/** The end of standard error that is kept, characters. */
const MAX_WORDS = 300;
/** Longest time that it may take, ms: less than the usual --io-timeout, so that the sentence names it. */
const MAX_TIME_MS = 45_000;

interface Output {
  /** Exit status, or the signal that ended it. */
  readonly status: number | string;
  readonly stdout: string;
  /** One clean line; empty where the program said nothing. */
  readonly words: string;
}

/** @param owner whose it is, for sentences: `the AWS profile "x"`. @throws CredentialsMistake */
export async function processCredentials(
  command: string,
  owner: string,
  env: NodeJS.ProcessEnv,
): Promise<AwsCredentials> {
  const name = `credential_process of ${owner}`;
  const { status, stdout, words } = await run(command, name, env);
  const said = words === "" ? "" : `: ${words}`;
  if (status !== 0) {
    const how = typeof status === "number" ? `status ${status}` : status;
    throw new CredentialsMistake(`${name} failed (${how})${said || ", and said nothing"}.`);
  }
  const fields = parse(stdout);
  if (fields === undefined) {
    throw new CredentialsMistake(`${name} printed no JSON with credentials${said}.`);
  }
  if (fields.Version !== 1) {
    const sentence = `${name} printed credentials of a version other than 1${said}.`;
    throw new CredentialsMistake(sentence);
  }
  const secret = (key: string): string => {
    const value = fields[key];
    if (typeof value === "string") return checkSecret(value, `${key}, printed by ${name},`);
    throw new CredentialsMistake(`${name} printed no ${key}${said}.`);
  };
  const { Expiration, AccountId } = fields;
  const expiration = typeof Expiration === "string" ? new Date(Expiration) : undefined;
  if (expiration !== undefined && Number.isNaN(expiration.getTime())) {
    throw new CredentialsMistake(`${name} printed an Expiration that is not a time.`);
  }
  return {
    accessKeyId: secret("AccessKeyId"),
    secretAccessKey: secret("SecretAccessKey"),
    ...(fields.SessionToken != null && { sessionToken: secret("SessionToken") }),
    ...(expiration !== undefined && { expiration }),
    ...(typeof AccountId === "string" && AccountId !== "" && { accountId: AccountId }),
  };
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function run(command: string, name: string, env: NodeJS.ProcessEnv): Promise<Output> {
  return new Promise((resolve, reject) => {
    const child = spawn("/bin/sh", ["-c", command], { env, stdio: ["ignore", "pipe", "pipe"] });
    const output: Buffer[] = [];
    let outputBytes = 0;
    let words = "";
    let error: CredentialsMistake | undefined;
    const stop = (what: string) => {
      error ??= new CredentialsMistake(`${name} ${what}.`);
      child.kill("SIGKILL");
      // A child of the shell may hold the other ends.
      child.stdout.destroy();
      child.stderr.destroy();
    };
    const timer = setTimeout(() => stop(`did not end within ${MAX_TIME_MS / 1000} s`), MAX_TIME_MS);
    child.stdout.on("data", (chunk: Buffer) => {
      outputBytes += chunk.length;
      if (outputBytes > MAX_OUTPUT_BYTES) stop("printed more than 256 KiB");
      else output.push(chunk);
    });
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      words = (words + chunk).slice(-2 * MAX_WORDS);
    });
    child.on("error", (cause) => {
      clearTimeout(timer);
      reject(new CredentialsMistake(`${name} could not be started (${cause.message}).`, { cause }));
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      if (error !== undefined) reject(error);
      else {
        const stdout = Buffer.concat(output).toString("utf8");
        resolve({ status: code ?? signal ?? "no status", stdout, words: clean(words) });
      }
    });
  });
}

/** One line of printable characters, the end of it where it is too long. */
function clean(words: string): string {
  const line = words
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colours, as programs write them.
    .replace(/\x1b\[[0-9;?]*[ -/]*[@-~]/g, "")
    .replace(/[\p{C}\p{Z}]+/gu, " ")
    .trim();
  const cut = line.length > MAX_WORDS ? `…${line.slice(-MAX_WORDS)}` : line;
  return cut.replace(/[.;]+$/, "");
}
