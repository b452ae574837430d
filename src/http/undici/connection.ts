/**
 * One kept connection: a socket, undici's client over it, and one request at a time. A connection that saw
 * anything unusual is destroyed and never used again; so is one whose response came before the request's
 * body was all sent, because the server would take the next request for the rest of it.
 */
import type { Socket } from "node:net";
import type { Client } from "undici";
import type { HttpRequest, HttpResponse } from "../transport.js";
import { clientOver } from "./client.js";
import type { DialState, Route } from "./dialer.js";
import { exchangeError, make, placeOf } from "./errors.js";
import { type GateRefusal, HeadGate } from "./head-gate.js";
import { ResponseReader } from "./response-reader.js";
import { progressOf } from "./socket-progress.js";
import { MISSING_USER, proxyAuthorization } from "./tunnel.js";

/** Headers that follow from the connection and the body, and are undici's to write. */
const OWN_HEADERS = new Set([
  ...["connection", "content-length", "expect", "host", "keep-alive"],
  ...["transfer-encoding", "upgrade"],
]);

const REFUSALS: Readonly<Record<GateRefusal, string>> = {
  "head-too-long": "has a head that is too long",
  switched: "changes to another protocol (status 101)",
  tls: "is TLS, but the URL says http",
};

/** Thrown where a kept connection had ended before a byte of the response came: it may be sent again. */
export class StaleConnection extends Error {}

export class Connection {
  readonly route: Route;
  readonly state: DialState;
  readonly #socket: Socket;
  readonly #client: Client;
  readonly #gate: HeadGate;
  #refuse: (why: GateRefusal) => void = () => {};
  #wasUsed = false;
  /** Bytes of the request's body that the peer has, and of the response's body. */
  #bodyBytes: () => number = () => 0;

  /** @param closed called once when it has ended. */
  constructor(socket: Socket, route: Route, state: DialState, closed: (self: Connection) => void) {
    this.route = route;
    this.state = state;
    this.#socket = socket;
    this.#gate = new HeadGate(socket, (why) => this.#refuse(why));
    this.#client = clientOver(socket);
    socket.once("close", () => closed(this));
  }

  /** It can take another request. */
  get isUsable(): boolean {
    return !this.#socket.destroyed && this.#socket.writable;
  }

  /** Bytes of the bodies of the request under way that have moved, both ways. */
  get bodyBytes(): number {
    return this.#bodyBytes();
  }

  /** After it, no target is written and no body is read. */
  destroy(): void {
    this.#socket.destroy();
    this.state.tcp?.destroy();
    this.#client.destroy().catch(() => {});
  }

  /**
   * The connection must be idle. When this has settled, the request's target and body are no more in use.
   * @param signal gives it up; its reason is thrown.
   * @throws HttpError, or StaleConnection.
   */
  async exchange(request: HttpRequest, signal: AbortSignal): Promise<HttpResponse> {
    const canBeStale = this.#wasUsed;
    this.#wasUsed = true;
    let hasStarted = false;
    let abort = () => {};
    try {
      const response = await new Promise<HttpResponse>((resolve, reject) => {
        const { route } = this;
        const reader: ResponseReader = new ResponseReader(request, {
          started: () => {
            hasStarted = true;
            this.#gate.begin();
          },
          done: (response) => {
            // Part of the body is still to be sent.
            if (this.#socket.writableLength > 0) this.destroy();
            resolve(response);
          },
          refused: ({ kind, words }) => reject(make(kind, this.#response(words), route)),
          failed: (error) => {
            const isUntouched = !hasStarted || this.#gate.received === 0;
            const isStale = canBeStale && isUntouched && !isUnsendable(error);
            const { hasHead, bodyBytes } = reader;
            reject(
              isStale
                ? new StaleConnection("", { cause: error })
                : exchangeError(error, route, this.state.address ?? "", { hasHead, bodyBytes }),
            );
          },
        });
        const sentBefore = progressOf(this.state.tcp).sent + headBytes(request, route);
        this.#bodyBytes = () => {
          const sent = progressOf(this.state.tcp).sent - sentBefore;
          return reader.bodyBytes + Math.min(Math.max(sent, 0), request.body?.length ?? 0);
        };
        abort = () => {
          reader.stop();
          reject(signal.reason);
        };
        this.#refuse = (why) => {
          reader.stop();
          const kind = why === "head-too-long" ? why : "protocol";
          reject(make(kind, this.#response(REFUSALS[why]), route));
        };
        signal.addEventListener("abort", abort, { once: true });
        if (signal.aborted) abort();
        else this.#dispatch(request, reader);
      });
      const { proxy, target } = this.route;
      if (response.status !== 407 || proxy === undefined || target.isSecure) return response;
      const message = `the proxy ${proxy.label} does not connect to ${target.label}: ${MISSING_USER}`;
      throw make("proxy", message, this.route);
    } catch (error) {
      this.destroy();
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
      this.#refuse = () => this.destroy();
      this.#bodyBytes = () => 0;
    }
  }

  #response(words: string): string {
    return `the response of ${placeOf(this.route, this.state.address)} ${words}`;
  }

  #dispatch({ method, url, headers, body }: HttpRequest, reader: ResponseReader): void {
    const { target, proxy } = this.route;
    const [, authority = "", raw = ""] =
      /^[a-z]+:\/\/(?:[^/?#]*@)?([^/?#]*)([^#]*)/i.exec(url) ?? [];
    const path = raw.startsWith("/") ? raw : `/${raw}`;
    const isForwarded = proxy !== undefined && !target.isSecure;
    const sent: Record<string, string> = { host: authority };
    for (const [name, value] of Object.entries(headers)) {
      if (name.toLowerCase() === "host") sent.host = value;
      else if (!OWN_HEADERS.has(name.toLowerCase())) sent[name] = value;
    }
    if (isForwarded) Object.assign(sent, proxyAuthorization(proxy));
    const options = {
      method,
      path: isForwarded ? `http://${authority}${path}` : path,
      headers: sent,
    };
    this.#client.dispatch(body === undefined ? options : { ...options, body }, reader);
  }
}

/** At least the bytes that go before a request's body, on the wire; TLS adds some to each record. */
function headBytes({ url, headers }: HttpRequest, { target }: Route): number {
  let bytes = url.length + 100;
  for (const [name, value] of Object.entries(headers)) bytes += name.length + value.length + 4;
  return target.isSecure ? bytes + 1024 : bytes;
}

function isUnsendable(error: Error): boolean {
  const { code = "" } = error as NodeJS.ErrnoException;
  return code === "UND_ERR_INVALID_ARG" || code === "UND_ERR_NOT_SUPPORTED";
}
