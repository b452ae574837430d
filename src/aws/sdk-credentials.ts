/**
 * Has the SDK fetch credentials from AWS itself: from STS, SSO, `aws login` and an instance's metadata. The
 * SDK would find out by itself what to fetch, from files and variables that it reads in its own way; here it
 * is given a configuration with just the one thing to do, made of what we have read and checked, under a path
 * that does not exist. It is offered no other source, so it cannot choose one.
 *
 * Its requests go over our transport. What fails there is kept, because the SDK passes on no more than words.
 * The hook that gives it files from memory is the SDK's own; test/aws fails if it goes.
 */
import { externalDataInterceptor } from "@smithy/core/config";
import { HttpError, messageWithHost } from "../http/http-error.js";
import { type Clock, clockOffset, isWrong } from "./clock.js";
import { quoted } from "./config-files.js";
import { type AwsCredentials, CredentialsError, CredentialsMistake } from "./credentials.js";

/** The SDK's default chain, as its clients have it: `credentialDefaultProvider`. */
export type SdkChain = (init: object) => () => Promise<AwsCredentials>;

/** Sends the SDK's requests. */
export interface SdkRequestHandler {
  handle(request: unknown, options?: unknown): Promise<{ response: SdkResponse }>;
}

interface SdkResponse {
  readonly statusCode: number;
  readonly headers: Readonly<Record<string, string>>;
}

/** What every fetch needs. */
export interface SdkContext {
  readonly chain: SdkChain;
  readonly handler: SdkRequestHandler;
  readonly region: string;
  readonly useFipsEndpoint: boolean;
  readonly useDualstackEndpoint: boolean;
  readonly clock: Clock;
}

/** One thing to do. */
export interface SdkTask {
  /** What is asked for, to begin a sentence: `the AWS credentials of profile "x" from STS`. */
  readonly what: string;
  /** Sections of the configuration; the profile to resolve is PROFILE. */
  readonly sections?: Readonly<Record<string, Readonly<Record<string, string | undefined>>>>;
  /** Of the default chain's own options. */
  readonly init?: object;
  /** Of the client that it makes. */
  readonly clientConfig?: object;
  readonly endpoint?: string | undefined;
  /** Sentence for a failure whose words fit; undefined where they do not. */
  readonly mistake?: (words: string) => string | undefined;
}

/** The profile in SdkTask.sections that is resolved. */
export const PROFILE = "ebsmount";

/** Silences the SDK. */
export const SILENT = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

/** A path under which the SDK finds a file without anything in it. */
const NO_FILE = "/dev/null/ebsmount-none";
externalDataInterceptor.interceptFile(NO_FILE, "");
let count = 0;

/** @throws CredentialsMistake, CredentialsError */
export async function throughSdk(context: SdkContext, task: SdkTask): Promise<AwsCredentials> {
  const { offsetMs } = context.clock;
  try {
    return await tryThroughSdk(context, task);
  } catch (error) {
    // The response shows that this machine's clock is wrong: sign by the server's.
    if (context.clock.offsetMs !== offsetMs) return await tryThroughSdk(context, task);
    throw error;
  }
}

async function tryThroughSdk(context: SdkContext, task: SdkTask): Promise<AwsCredentials> {
  const { chain, region, useFipsEndpoint, useDualstackEndpoint, clock } = context;
  const handler = new WatchedHandler(context.handler, clock);
  const clientConfig = {
    requestHandler: handler,
    logger: SILENT,
    maxAttempts: 1,
    ignoreConfiguredEndpointUrls: true,
    useFipsEndpoint: useFipsEndpoint && task.endpoint === undefined,
    useDualstackEndpoint: useDualstackEndpoint && task.endpoint === undefined,
    systemClockOffset: clock.offsetMs,
    ...(task.endpoint !== undefined && { endpoint: task.endpoint }),
    ...task.clientConfig,
  };
  count += 1;
  const path = `/dev/null/ebsmount-${count}`;
  externalDataInterceptor.interceptFile(path, textOf(task));
  try {
    return await chain({
      profile: PROFILE,
      filepath: NO_FILE,
      configFilepath: path,
      logger: SILENT,
      clientConfig,
      parentClientConfig: {
        requestHandler: handler,
        logger: SILENT,
        profile: PROFILE,
        region: async () => region,
      },
      // No others than these: without a word about them the SDK takes them from the environment.
      webIdentityTokenFile: "",
      roleArn: "",
      ...task.init,
    })();
  } catch (error) {
    throw explained(error, handler, task);
  } finally {
    delete externalDataInterceptor.getFileRecord()[path];
  }
}

/** Has the SDK take a token for the content of a file. */
export async function withTokenFile<T>(
  token: string,
  use: (path: string) => Promise<T>,
): Promise<T> {
  count += 1;
  const path = `/dev/null/ebsmount-token-${count}`;
  externalDataInterceptor.interceptToken(path, token);
  try {
    return await use(path);
  } finally {
    delete externalDataInterceptor.getTokenRecord()[path];
  }
}

/** @throws CredentialsMistake where a value could be taken for something else in the text. */
function textOf({ sections = {}, what }: SdkTask): string {
  const lines: string[] = [];
  for (const [section, values] of Object.entries(sections)) {
    lines.push(`[${section}]`);
    for (const [name, value] of Object.entries(values)) {
      if (!value) continue;
      if (/\p{Cc}|\s[#;]/u.test(value)) {
        throw new CredentialsMistake(
          `${name}, for ${what}, holds a line break, control character or comment; check its line and the next ones' indentation.`,
        );
      }
      lines.push(`${name} = ${value}`);
    }
  }
  return lines.join("\n");
}

/** Keeps what failed, and notes the time that servers tell. */
class WatchedHandler implements SdkRequestHandler {
  readonly metadata = { handlerProtocol: "http/1.1" };
  readonly #handler: SdkRequestHandler;
  readonly #clock: Clock;
  failure: HttpError | undefined;
  status: number | undefined;

  constructor(handler: SdkRequestHandler, clock: Clock) {
    this.#handler = handler;
    this.#clock = clock;
  }

  async handle(request: unknown, options?: unknown): Promise<{ response: SdkResponse }> {
    try {
      const result = await this.#handler.handle(request, options);
      const { statusCode, headers } = result.response;
      this.status = statusCode;
      const { date } = headers;
      if (isWrong(this.#clock.offsetMs, date)) this.#clock.offsetMs = clockOffset(date);
      return result;
    } catch (error) {
      if (error instanceof HttpError) this.failure = error;
      throw error;
    }
  }

  updateHttpClientConfig(): void {}

  httpHandlerConfigs(): Record<string, never> {
    return {};
  }

  destroy(): void {}
}

function explained(error: unknown, handler: WatchedHandler, task: SdkTask): Error {
  if (error instanceof CredentialsMistake) return error;
  const { failure, status } = handler;
  if (failure !== undefined) {
    return new CredentialsError(`${task.what}: ${messageWithHost(failure)}`, { cause: failure });
  }
  const words = wordsOf(error);
  const mistake = task.mistake?.(words);
  if (mistake !== undefined) return new CredentialsMistake(mistake, { cause: error });
  // The SDK may have kept only the words of what a server said.
  const hasStatus = typeof error === "object" && error !== null && "$metadata" in error;
  const cause =
    hasStatus || status === undefined
      ? error
      : { name: "CredentialsProviderError", message: words, $metadata: { httpStatusCode: status } };
  const name = error instanceof Error && hasStatus ? ` (${error.name})` : "";
  return new CredentialsError(`${task.what}: ${words}${name}`, { cause });
}

function wordsOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const line = message.replace(/[\p{C}\p{Z}]+/gu, " ").trim();
  return line.replace(/[.;]+$/, "").slice(0, 300) || "no reason given";
}

/** For names that go into section headers, which the SDK reads with this pattern (parseIni). */
export function checkSectionName(name: string, from: string): string {
  if (/^[\w\-@+.%:/]+$/.test(name)) return name;
  throw new CredentialsMistake(
    `${from} is ${quoted(name)}; a name with such characters cannot be used here, rename it.`,
  );
}
