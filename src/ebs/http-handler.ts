/**
 * The SDK's way to the network. It differs from the stock handler in two ways. A block's bytes go
 * from the socket straight to where they are wanted, such as a slot of the cache, with no stream in
 * between (block-connection.ts). And an answer is handed over whole or not at all: the exchange a
 * caller passes along ends with the complete body, or with an error that says it was cut short,
 * stalled or too long. After the exchange has ended its target is never written again.
 *
 * Lists and the like, blocks from servers whose HTTP is not plain, and the SDK's own requests for
 * credentials, which come without an exchange, go over node:http(s).
 */
import type { Origin, RawAnswer } from "./block-connection.js";
import { BlockConnections } from "./block-connections.js";
import {
  type Attempt,
  type Exchange,
  forSdk,
  type HandlerOptions,
  type HandlerRequest,
  type HandlerResponse,
} from "./exchange.js";
import { NodeHttp } from "./node-http.js";
import { bareHost, requestHead } from "./request-text.js";
import { NotPlain } from "./response-head.js";

/** Blocks asked for twice, because the first answer was not plain, before node:http does them all. */
const MOST_NOT_PLAIN = 5;

export class EbsHttpHandler {
  readonly metadata = { handlerProtocol: "http/1.1" };
  readonly #nodeHttp: NodeHttp;
  readonly #sockets: number;
  /** By protocol, host and port: one, as long as the endpoint does not change. */
  readonly #blocks = new Map<string, BlockConnections>();
  /** Answers that were not plain; some may come from a proxy on the way, many are the server's. */
  #notPlain = 0;

  /** @param sockets connections at most, to one host. */
  constructor(sockets: number) {
    this.#sockets = sockets;
    this.#nodeHttp = new NodeHttp(sockets);
  }

  async handle(
    toSend: HandlerRequest,
    options: HandlerOptions = {},
  ): Promise<{ response: HandlerResponse }> {
    const { exchange } = options;
    if (exchange !== undefined) exchange.sent = toSend;
    if (exchange?.isBlock && this.#notPlain < MOST_NOT_PLAIN) {
      try {
        return await this.#attempt(options, (attempt) =>
          this.#sendBlock(toSend, exchange, attempt),
        );
      } catch (error) {
        if (!(error instanceof NotPlain)) throw error;
        this.#notPlain += 1;
      }
    }
    return await this.#attempt(options, (attempt) =>
      this.#nodeHttp.send(toSend, exchange, attempt),
    );
  }

  /** One request that ends with its answer, an error, an abort, or when nothing moves any more. */
  #attempt(
    { abortSignal, exchange }: HandlerOptions,
    start: (attempt: Attempt) => () => void,
  ): Promise<{ response: HandlerResponse }> {
    return new Promise((resolve, reject) => {
      if (abortSignal?.aborted) return reject(aborted());
      let settled = false;
      let moved = performance.now();
      let giveUp = () => {};
      const end = (): boolean => {
        if (settled) return false;
        settled = true;
        clearInterval(watch);
        abortSignal?.removeEventListener("abort", abort);
        return true;
      };
      const stop = (error: unknown) => {
        if (!end()) return;
        giveUp();
        reject(error);
      };
      const abort = () => stop(aborted());
      const stallMs = exchange?.stallMs ?? 30_000;
      const watch = setInterval(
        () => {
          if (performance.now() - moved >= stallMs) stop(stalled());
        },
        Math.ceil(stallMs / 4),
      );
      abortSignal?.addEventListener("abort", abort, { once: true });
      giveUp = start({
        progress: () => {
          moved = performance.now();
          return !settled;
        },
        answer: (response) => {
          if (end()) resolve({ response });
        },
        fail: (error) => {
          if (end()) reject(error);
        },
      });
    });
  }

  #sendBlock(toSend: HandlerRequest, exchange: Exchange, attempt: Attempt): () => void {
    const end = (error: unknown, answer?: RawAnswer) => {
      if (answer === undefined) {
        attempt.fail(error);
        return;
      }
      Object.assign(exchange, answer);
      attempt.answer(forSdk(answer.status, exchange));
    };
    return this.#blocksOf(toSend).send({
      head: requestHead(toSend),
      body: toSend.body instanceof Uint8Array ? toSend.body : undefined,
      target: exchange.target,
      progress: attempt.progress,
      end,
    });
  }

  #blocksOf(toSend: HandlerRequest): BlockConnections {
    const secure = toSend.protocol === "https:";
    const origin: Origin = {
      secure,
      host: bareHost(toSend),
      port: toSend.port ?? (secure ? 443 : 80),
    };
    const key = `${toSend.protocol}//${origin.host}:${origin.port}`;
    let connections = this.#blocks.get(key);
    if (connections === undefined) {
      connections = new BlockConnections(origin, this.#sockets);
      this.#blocks.set(key, connections);
    }
    return connections;
  }

  /** The SDK sets options through this when its configuration is extended; there are none here. */
  updateHttpClientConfig(): void {}

  httpHandlerConfigs(): Record<string, never> {
    return {};
  }

  destroy(): void {
    this.#nodeHttp.destroy();
    for (const connections of this.#blocks.values()) connections.destroy();
  }
}

function aborted(): Error {
  return Object.assign(new Error("aborted"), { name: "AbortError" });
}

function stalled(): Error {
  return Object.assign(new Error("stalled"), { name: "TimeoutError", code: "stalled" });
}
