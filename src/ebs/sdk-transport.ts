/**
 * Sends one attempt of a request through the SDK's client; blocks past the SDK's machinery, once it has
 * shown how (signed-blocks.ts). Credentials are renewed by another client over the same connections.
 */
import { type Client, type ClientOptions, makeClient } from "./client.js";
import { type Exchange, newExchange } from "./exchange.js";
import type { Meter } from "./meter.js";
import { type BlockRequest, SignedBlocks } from "./signed-blocks.js";

/**
 * Credentials are taken from their source at most this often, ms: many requests find out at a time that
 * they have expired, and what a source gave just now it would give again.
 */
const RENEW_EVERY_MS = 2_000;

export class SdkTransport {
  readonly #options: ClientOptions;
  readonly #stallMs: number;
  readonly #meter: Meter;
  #client: Client;
  #renewedAt = Number.NEGATIVE_INFINITY;
  #signedBlocks: SignedBlocks | undefined;

  /** @param stallMs an attempt on which no byte moves for this long is given up. */
  constructor(options: ClientOptions, stallMs: number, meter: Meter) {
    this.#options = options;
    this.#stallMs = stallMs;
    this.#meter = meter;
    this.#client = makeClient(options);
  }

  /** @returns the whole answer. @throws what the SDK or the request handler throws. */
  async send(command: object, abortSignal: AbortSignal, exchange?: Exchange): Promise<Exchange> {
    const passed = exchange ?? newExchange(this.#stallMs, false);
    const sender = this.#client.sdk as unknown as Sender;
    await sender.send(command, { abortSignal, exchange: passed });
    return passed;
  }

  /**
   * The same for a block, which lands in `target` where one is given.
   * @param command the SDK's, made where it has to be asked.
   */
  async sendBlock(
    request: BlockRequest,
    command: () => object,
    signal: AbortSignal,
    target?: Uint8Array,
  ): Promise<Exchange> {
    const signedBlocks = this.#signedBlocks;
    if (signedBlocks !== undefined) {
      const answer = await signedBlocks.send(request, signal, this.#stallMs, target);
      if (answer !== undefined) return answer;
      // Asked a second time: that is one more request.
      const operation = request.put === undefined ? "GetSnapshotBlock" : "PutSnapshotBlock";
      this.#meter.count(operation, "requests");
    }
    const { sdk, handler } = this.#client;
    const exchange = newExchange(this.#stallMs, true, target);
    await this.send(command(), signal, exchange);
    // Not of a client whose credentials were replaced meanwhile.
    if (sdk === this.#client.sdk) {
      this.#signedBlocks = SignedBlocks.after(sdk, handler, exchange.sent, request);
    }
    return exchange;
  }

  /** For the next attempts, takes credentials anew from their source, unless that was done just now. */
  renewCredentials(): void {
    const now = performance.now();
    if (now - this.#renewedAt < RENEW_EVERY_MS) return;
    this.#renewedAt = now;
    this.#signedBlocks = undefined;
    this.#client = makeClient(this.#options, this.#client);
  }

  close(): void {
    this.#client.sdk.destroy();
  }
}

/** EBSClient.send without its types: the SDK hands options it does not know to the handler. */
interface Sender {
  send(command: object, options: object): Promise<unknown>;
}
