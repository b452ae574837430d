/**
 * The transport over undici, where libcurl is missing or too old. undici does HTTP/1.1 itself: what is
 * written of a request, and what a response's bytes mean. Which connections there are, how they are made and
 * when a request ends, is decided here, because the contract (transport.ts) asks for more than undici's own
 * pools promise: one limit for all hosts, no interim response taken for an error, a stall limit by bytes
 * that have really moved, one more try where a kept connection had ended, and that only.
 *
 * A request takes a place (connections.ts), dials if the place holds no kept connection (dialer.ts), and
 * sends over it (connection.ts). One AbortController a request ends whichever of these is under way.
 */
import { checkRequest } from "../check-request.js";
import { abortError } from "../http-error.js";
import { proxyFor } from "../proxies.js";
import type { HttpRequest, HttpResponse, HttpTransport, TransportSettings } from "../transport.js";
import { describeUndici } from "./client.js";
import { Connection, StaleConnection } from "./connection.js";
import { Connections, type Place } from "./connections.js";
import { type DialState, dial, type Route, routeTo } from "./dialer.js";
import { dialError, stallError } from "./errors.js";
import { progressOf } from "./socket-progress.js";
import { watchForStall } from "./stall-watch.js";
import { TrustContext } from "./trust-context.js";

export class UndiciTransport implements HttpTransport {
  readonly description: string;
  readonly #settings: TransportSettings;
  readonly #trust: TrustContext;
  readonly #connections: Connections;
  /** Ends each request under way. */
  readonly #active = new Map<Promise<unknown>, () => void>();
  #isClosed = false;

  constructor(settings: TransportSettings) {
    this.description = describeUndici();
    this.#settings = settings;
    this.#trust = new TrustContext(settings.trust);
    this.#connections = new Connections(settings.maxConnections);
  }

  async send(request: HttpRequest, signal?: AbortSignal): Promise<HttpResponse> {
    const target = checkRequest(request);
    const route = routeTo(target, proxyFor(request.url, this.#settings.proxies));
    if (this.#isClosed) throw abortError("closed", target.label);
    if (signal?.aborted) throw abortError("aborted", target.label);
    const stop = new AbortController();
    const abort = () => stop.abort(abortError("aborted", target.label));
    signal?.addEventListener("abort", abort, { once: true });
    const sending = this.#send(request, route, stop);
    this.#active.set(sending, () => stop.abort(abortError("closed", target.label)));
    try {
      return await sending;
    } finally {
      this.#active.delete(sending);
      signal?.removeEventListener("abort", abort);
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    const underWay = [...this.#active];
    for (const [, end] of underWay) end();
    await Promise.allSettled(underWay.map(([sending]) => sending));
    this.#connections.closeIdle();
  }

  async #send(request: HttpRequest, route: Route, stop: AbortController): Promise<HttpResponse> {
    const place = await this.#connections.take(route.key, stop.signal);
    // The wait in line was others' time.
    let state: DialState = place.connection?.state ?? { stage: "name" };
    let bodyBytes = 0;
    const unwatch = watchForStall(
      request.stallMs,
      () => `${state.stage} ${JSON.stringify(progressOf(state.tcp))}`,
      () => {
        const moved = place.connection?.bodyBytes ?? 0;
        if (moved <= bodyBytes) return;
        bodyBytes = moved;
        request.progress?.(moved);
      },
      () => stop.abort(stallError(route, state, request.stallMs)),
    );
    try {
      if (place.connection !== undefined) {
        try {
          return await place.connection.exchange(request, stop.signal);
        } catch (error) {
          if (!(error instanceof StaleConnection)) throw error;
        }
      }
      state = { stage: "name" };
      const connection = await this.#dial(place, route, state, stop.signal);
      return await connection.exchange(request, stop.signal);
    } finally {
      unwatch();
      this.#connections.release(place);
    }
  }

  async #dial(
    place: Place,
    route: Route,
    state: DialState,
    signal: AbortSignal,
  ): Promise<Connection> {
    place.connection = undefined;
    try {
      const socket = await dial(route, this.#trust, state, signal);
      const drop = (ended: Connection) => this.#connections.drop(ended);
      place.connection = new Connection(socket, route, state, drop);
      return place.connection;
    } catch (error) {
      throw signal.aborted ? signal.reason : dialError(error, route, state);
    }
  }
}
