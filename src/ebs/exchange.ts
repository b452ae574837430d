/**
 * One request and its answer on the way through the SDK: what our code passes along with a command,
 * what the request handler gets and gives, and what the SDK is shown of an answer.
 */
import { Readable } from "node:stream";

/** Bytes of a body that are written at a time, so that a slow upload shows progress. */
export const WRITE_SIZE = 128 * 1024;

/** One request and what came back, passed to the handler through the options of `client.send`. */
export interface Exchange {
  /** A block is got or put. */
  readonly isBlock: boolean;
  /** Where a successful answer's body goes; a longer or shorter body is an error. */
  readonly target?: Uint8Array;
  /** Longest pause in which no byte moves, ms; then the attempt is over. */
  readonly stallMs: number;
  /** The signed request, as the SDK gave it. */
  sent?: HandlerRequest;
  status: number;
  headers: Record<string, string>;
  /** The body of an answer without a target, or of an error. */
  body: Uint8Array;
}

export function newExchange(stallMs: number, isBlock: boolean, target?: Uint8Array): Exchange {
  return { stallMs, isBlock, status: 0, headers: {}, body: NO_BYTES, ...(target && { target }) };
}

/** What the handler needs of the SDK's HttpRequest. */
export interface HandlerRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly method: string;
  readonly path: string;
  readonly query?: Record<string, string | string[] | null>;
  readonly headers: Record<string, string>;
  readonly body?: unknown;
}

export interface HandlerOptions {
  readonly abortSignal?: AbortSignal;
  readonly exchange?: Exchange;
}

export interface HandlerResponse {
  statusCode: number;
  reason?: string;
  headers: Record<string, string>;
  body: unknown;
}

const NO_BYTES = new Uint8Array(0);

/** What a way of sending tells of its progress; only the first end counts. */
export interface Attempt {
  /** Bytes moved; false when nobody is interested any more. */
  progress(): boolean;
  answer(response: HandlerResponse): void;
  fail(error: unknown): void;
}

/**
 * What the SDK gets to see. Our own code reads a success (answers.ts), more strictly where bytes
 * count and more tolerantly where servers differ; the SDK's reader would give up on some of those.
 */
export function forSdk(status: number, exchange: Exchange): HandlerResponse {
  if (status >= 300) return { statusCode: status, headers: exchange.headers, body: exchange.body };
  const headers: Record<string, string> = {};
  // The date lets the SDK notice and allow for a clock that is wrong.
  for (const name of ["x-amzn-requestid", "date"]) {
    const value = exchange.headers[name];
    if (value !== undefined) headers[name] = value;
  }
  const body = exchange.target === undefined ? new Uint8Array(0) : NO_STREAM;
  return { statusCode: status, headers, body };
}

/** The SDK decorates a streamed answer with methods, and nobody reads it here: one serves all. */
const NO_STREAM = new Readable({ read() {} });
