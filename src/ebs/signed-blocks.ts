/**
 * Sends block requests without the SDK's machinery around them. Building one request through it
 * costs more processor time than receiving the block; and but for the block's index and token, and
 * the signature, each is like the one before. So the first goes through the SDK and is the model for
 * the rest: same endpoint, same headers, signed by the SDK's own signer with the SDK's credentials,
 * which it renews as ever. An answer that looks like trouble with endpoint, clock or credentials is
 * not judged here: the caller asks again through the SDK, which knows what to do about those.
 */
import type { EBSClient } from "@aws-sdk/client-ebs";
import { type Exchange, type HandlerRequest, newExchange } from "./exchange.js";
import type { EbsHttpHandler } from "./http-handler.js";
import { AUTHORIZATION_SCOPE, ServiceAnswer } from "./service-answer.js";

/** What makes one block request different from another. */
export interface BlockRequest {
  readonly snapshotId: string;
  readonly blockIndex: number;
  /** Of a get. */
  readonly blockToken?: string;
  /** Of a put: x-amz-… headers, the data, and its SHA-256 in hexadecimal. */
  readonly put?: {
    readonly headers: Record<string, string>;
    readonly data: Uint8Array;
    readonly hash: string;
  };
}

/** Headers of the model that are the same for all requests. */
const KEPT = ["host", "user-agent", "x-amz-user-agent", "amz-sdk-request"];
/** SHA-256 of no bytes: a get has no body. */
const EMPTY_HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

type Signer = Awaited<ReturnType<EBSClient["config"]["signer"]>>;

export class SignedBlocks {
  readonly #client: EBSClient;
  readonly #handler: EbsHttpHandler;
  readonly #model: HandlerRequest;
  readonly #base: string;
  readonly #headers: Record<string, string> = {};
  readonly #region: string;
  readonly #service: string;
  #signer: Signer | undefined;

  /** @returns undefined where the SDK's request does not look as expected: then use the SDK. */
  static after(
    client: EBSClient,
    handler: EbsHttpHandler,
    sent: HandlerRequest | undefined,
    of: BlockRequest,
  ): SignedBlocks | undefined {
    const path = pathOfBlock(of);
    const scope = AUTHORIZATION_SCOPE.exec(sent?.headers.authorization ?? "");
    if (sent === undefined || scope === null || !sent.path.endsWith(path)) return undefined;
    return new SignedBlocks(client, handler, sent, path, scope);
  }

  private constructor(
    client: EBSClient,
    handler: EbsHttpHandler,
    model: HandlerRequest,
    path: string,
    scope: RegExpExecArray,
  ) {
    this.#client = client;
    this.#handler = handler;
    this.#model = model;
    this.#base = model.path.slice(0, model.path.length - path.length);
    this.#region = scope[1] as string;
    this.#service = scope[2] as string;
    for (const name of KEPT) {
      const value = model.headers[name];
      if (value !== undefined) this.#headers[name] = value;
    }
  }

  /**
   * @returns the exchange with a success, or undefined where the SDK must be asked.
   * @throws ServiceAnswer for the service's own errors, and what the handler throws.
   */
  async send(
    block: BlockRequest,
    abortSignal: AbortSignal,
    stallMs: number,
    target?: Uint8Array,
  ): Promise<Exchange | undefined> {
    const exchange = newExchange(stallMs, true, target);
    await this.#handler.handle(await this.#sign(block), { abortSignal, exchange });
    if (exchange.status < 300) return exchange;
    const error = ServiceAnswer.read(exchange);
    if (error === undefined) return undefined;
    throw error;
  }

  async #sign(block: BlockRequest): Promise<HandlerRequest> {
    const { put, blockToken } = block;
    this.#signer ??= await this.#client.config.signer();
    const hash = put?.hash ?? EMPTY_HASH;
    const request = {
      protocol: this.#model.protocol,
      hostname: this.#model.hostname,
      ...(this.#model.port !== undefined && { port: this.#model.port }),
      method: put === undefined ? "GET" : "PUT",
      path: this.#base + pathOfBlock(block),
      query: blockToken === undefined ? {} : { blockToken },
      headers: {
        ...this.#headers,
        ...put?.headers,
        "x-amz-content-sha256": hash,
        ...(put !== undefined && { "content-length": String(put.data.length) }),
      },
      body: put?.data,
    };
    const signed = await this.#signer.sign(request as Parameters<Signer["sign"]>[0], {
      signingDate: new Date(Date.now() + this.#client.config.systemClockOffset),
      signingRegion: this.#region,
      signingService: this.#service,
    });
    return signed as HandlerRequest;
  }
}

function pathOfBlock(block: BlockRequest): string {
  return `/snapshots/${block.snapshotId}/blocks/${block.blockIndex}`;
}
