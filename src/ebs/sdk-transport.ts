/**
 * Sends one try of a request over the one transport: through the SDK's client, which finds credentials, signs
 * and words the rare requests; or, for blocks, signed here with what the SDK found (signature.ts).
 */
import type { EBSClient } from "@aws-sdk/client-ebs";
import { clockOffset, isWrong } from "../aws/clock.js";
import { abortError } from "../http/http-error.js";
import type { HttpResponse } from "../http/transport.js";
import { CAPTURED_PATH, type CapturedRequest, captureRequest } from "./captured-request.js";
import { type ClientOptions, makeSdk, type OpenedPlace, openPlace } from "./client.js";
import { type Exchange, originOf } from "./request-handler.js";
import type { ServiceException } from "./service-exception.js";
import type { SigningContext } from "./signature.js";

/**
 * Credentials are taken from their source at most this often, ms: many requests find out at a time that
 * they have expired, and what a source gave just now it would give again.
 */
const MIN_RENEWAL_MS = 2_000;
/** Headers of the SDK's request that block requests have too. */
const KEPT_HEADERS = ["host", "user-agent", "x-amz-user-agent", "amz-sdk-request"];

export class SdkTransport {
  readonly #options: ClientOptions;
  readonly #maxConnections: number;
  readonly #stallMs: number;
  readonly #log: (level: "debug" | "warn", message: string) => void;
  #opened: Promise<OpenedPlace> | undefined;
  #place: OpenedPlace | undefined;
  #sdk: EBSClient | undefined;
  #captured: Promise<CapturedRequest> | undefined;
  #context: SigningContext | undefined;
  #renewedAt = Number.NEGATIVE_INFINITY;
  #isClosed = false;

  /** Makes no request and opens nothing. @param stallMs of requests for credentials. */
  constructor(
    options: ClientOptions,
    maxConnections: number,
    stallMs: number,
    log: (level: "debug" | "warn", message: string) => void,
  ) {
    this.#options = options;
    this.#maxConnections = maxConnections;
    this.#stallMs = stallMs;
    this.#log = log;
  }

  /** Where block requests go, `https://host:port`; empty before the first. */
  get origin(): string {
    return this.#context?.origin ?? "";
  }

  /** @throws Failure where the AWS configuration, certificates or proxies cannot be used. */
  open(): Promise<OpenedPlace> {
    this.#opened ??= this.#open();
    return this.#opened;
  }

  /** Whose response is waited for now, for sentences. */
  get waitsFor(): string {
    const place = this.#place;
    if (place === undefined) return "the AWS configuration";
    const { aws, endpointUrl, source } = place;
    if (!source.isFetching) return new URL(endpointUrl).host;
    return `the source of the AWS credentials (profile ${aws.profileName.slice(0, 80)})`;
  }

  async #open(): Promise<OpenedPlace> {
    const opened = await openPlace(this.#options, this.#maxConnections, this.#stallMs);
    this.#place = opened;
    this.#log("debug", `Requests go over ${opened.transport.description}.`);
    return opened;
  }

  /** @returns the whole response. @throws what the SDK or the transport throws. */
  async send(command: object, abortSignal: AbortSignal, exchange: Exchange): Promise<HttpResponse> {
    const sdk = (await this.#client()) as unknown as Sender;
    await sdk.send(command, { abortSignal, exchange });
    return exchange.response as HttpResponse;
  }

  /** How block requests are signed now; the same object as long as nothing has changed. */
  async signingContext(): Promise<SigningContext> {
    const sdk = await this.#client();
    this.#captured ??= captureRequest(sdk);
    const captured = this.#captured;
    let found: CapturedRequest;
    try {
      found = await captured;
    } catch (error) {
      if (this.#captured === captured) this.#captured = undefined;
      throw error;
    }
    const { accessKeyId, secretAccessKey, sessionToken } = await sdk.config.credentials();
    const clockOffsetMs = sdk.config.systemClockOffset;
    const last = this.#context;
    if (
      last !== undefined &&
      last.accessKeyId === accessKeyId &&
      last.secretAccessKey === secretAccessKey &&
      last.sessionToken === sessionToken &&
      last.clockOffsetMs === clockOffsetMs
    ) {
      return last;
    }
    const { request, region, service } = found;
    const headers: Record<string, string> = {};
    for (const name of KEPT_HEADERS) {
      const value = request.headers[name];
      if (value !== undefined) headers[name] = value;
    }
    this.#context = {
      origin: originOf(request),
      basePath: request.path.slice(0, -CAPTURED_PATH.length),
      headers,
      region,
      service,
      accessKeyId,
      secretAccessKey,
      sessionToken,
      clockOffsetMs,
    };
    return this.#context;
  }

  /**
   * Where the service's clock differs from ours by as much as it refuses, signs by it from now on, and marks
   * the exception as one that passes; as the SDK does for its own requests.
   */
  noteClock(exception: ServiceException, signedWith: SigningContext): void {
    const sdk = this.#sdk;
    const { date } = exception;
    if (sdk === undefined || !isWrong(signedWith.clockOffsetMs, date)) return;
    sdk.config.systemClockOffset = clockOffset(date);
    exception.$metadata.clockSkewCorrected = true;
  }

  /** For the next tries, takes credentials from their source again, unless that was done just now. */
  async renewCredentials(): Promise<void> {
    const now = performance.now();
    if (now - this.#renewedAt < MIN_RENEWAL_MS) return;
    this.#renewedAt = now;
    const opened = await this.open();
    opened.source.forget();
    this.#sdk = makeSdk(opened);
    this.#captured = undefined;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#sdk?.destroy();
    const opened = await this.#opened?.catch(() => undefined);
    await opened?.transport.close();
  }

  async #client(): Promise<EBSClient> {
    const opened = await this.open();
    if (this.#isClosed) throw abortError("closed");
    this.#sdk ??= makeSdk(opened);
    return this.#sdk;
  }
}

/** EBSClient.send without its types: the SDK hands options it does not know to the handler. */
interface Sender {
  send(command: object, options: object): Promise<unknown>;
}
