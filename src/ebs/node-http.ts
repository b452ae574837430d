/**
 * Requests over node:http(s), which knows all of HTTP: lists and the like, blocks from servers whose
 * HTTP is not plain, and the SDK's own requests for credentials, which get a streamed answer.
 */
import { type ClientRequest, Agent as HttpAgent, type IncomingMessage, request } from "node:http";
import { Agent as HttpsAgent, request as requestTls } from "node:https";
import {
  type Attempt,
  type Exchange,
  forSdk,
  type HandlerRequest,
  type HandlerResponse,
  WRITE_SIZE,
} from "./exchange.js";
import { bareHost, pathOf } from "./request-text.js";
import { AnswerError } from "./trouble.js";

/** Largest body without a target: a list page with ten thousand blocks is about 1 to 2 MiB. */
const BODY_LIMIT = 64 * 1024 * 1024;

export class NodeHttp {
  readonly #http: HttpAgent;
  readonly #https: HttpsAgent;

  /** @param sockets connections at most, to one host. */
  constructor(sockets: number) {
    const options = { keepAlive: true, maxSockets: sockets, scheduling: "lifo" } as const;
    this.#http = new HttpAgent(options);
    this.#https = new HttpsAgent(options);
  }

  /** @returns a function that gives the request up. */
  send(toSend: HandlerRequest, exchange: Exchange | undefined, attempt: Attempt): () => void {
    const secure = toSend.protocol === "https:";
    const outgoing = (secure ? requestTls : request)({
      host: bareHost(toSend),
      ...(toSend.port !== undefined && { port: toSend.port }),
      method: toSend.method,
      path: pathOf(toSend),
      headers: toSend.headers,
      agent: secure ? this.#https : this.#http,
    });
    const fail = (error: unknown) => {
      attempt.fail(error);
      outgoing.destroy();
    };
    // A failure after the answer was handed over is seen by whoever reads the answer.
    outgoing.on("error", attempt.fail);
    outgoing.on("response", (incoming) => {
      if (exchange === undefined) attempt.answer(streamed(incoming));
      else receive(incoming, exchange, { ...attempt, fail });
    });
    sendBody(outgoing, toSend.body, attempt.progress);
    return () => void outgoing.destroy();
  }

  destroy(): void {
    this.#http.destroy();
    this.#https.destroy();
  }
}

/** Takes in the whole answer, then gives the SDK its head and, for an error, its body. */
function receive(incoming: IncomingMessage, exchange: Exchange, attempt: Attempt): void {
  const status = incoming.statusCode ?? 0;
  const target = status < 300 ? exchange.target : undefined;
  const limit = target?.length ?? BODY_LIMIT;
  const chunks: Uint8Array[] = [];
  let length = 0;
  exchange.status = status;
  exchange.headers = flatHeaders(incoming);
  incoming.on("data", (chunk: Uint8Array) => {
    if (!attempt.progress()) return;
    if (length + chunk.length > limit) {
      const long = `the answer's body is longer than ${limit} bytes.`;
      attempt.fail(new AnswerError("corrupt", "BodyTooLong", long));
      return;
    }
    if (target !== undefined) target.set(chunk, length);
    else chunks.push(chunk);
    length += chunk.length;
  });
  const cut = () => {
    const short = `the answer's body was cut short after ${length} bytes.`;
    attempt.fail(new AnswerError("soon", "BodyCutShort", short));
  };
  incoming.on("error", cut);
  incoming.on("aborted", cut);
  incoming.on("close", cut);
  incoming.on("end", () => {
    if (!incoming.complete) return cut();
    if (target !== undefined && length !== limit) {
      const short = `the answer's body has ${length} bytes instead of ${limit}.`;
      attempt.fail(new AnswerError("corrupt", "BodyTooShort", short));
      return;
    }
    exchange.body = chunks.length === 1 ? (chunks[0] as Uint8Array) : Buffer.concat(chunks);
    attempt.answer(forSdk(status, exchange));
  });
}

function streamed(incoming: IncomingMessage): HandlerResponse {
  const statusCode = incoming.statusCode ?? 0;
  return { statusCode, headers: flatHeaders(incoming), body: incoming };
}

function flatHeaders(incoming: IncomingMessage): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(incoming.headers)) {
    if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(", ") : value;
  }
  return headers;
}

/** Writes the body piece by piece, each when the last has left, so that a stall is noticed. */
function sendBody(outgoing: ClientRequest, body: unknown, progress: () => boolean): void {
  if (body === undefined || body === null) return void outgoing.end();
  if (typeof body === "string") return void outgoing.end(body);
  if (!(body instanceof Uint8Array)) {
    outgoing.destroy(new Error("a request body must be bytes or text"));
    return;
  }
  const next = (from: number): void => {
    if (!progress()) return;
    const end = Math.min(from + WRITE_SIZE, body.length);
    const piece = body.subarray(from, end);
    if (end === body.length) outgoing.end(piece);
    else outgoing.write(piece, (error) => (error ? undefined : next(end)));
  };
  next(0);
}
