/**
 * Takes one response from undici's parser: a successful one straight into the target, every other into memory
 * of its own, bounded. Lengths are checked when the head says them, and again when the body is there. Nothing
 * is written once the result is in.
 */
import type { Dispatcher } from "undici";
import { type HttpRequest, type HttpResponse, MAX_ERROR_BODY_BYTES } from "../transport.js";

type Headers = Record<string, string | string[] | undefined>;

/** What is wrong with a response that came as HTTP. */
export interface LengthProblem {
  readonly kind: "body-too-short" | "body-too-long";
  /** To follow "the response of …". */
  readonly words: string;
}

export interface ReaderEvents {
  /** The request is being written: what comes from here on is its response. */
  started(): void;
  done(response: HttpResponse): void;
  refused(problem: LengthProblem): void;
  failed(error: Error): void;
}

const NO_BYTES = new Uint8Array(0);
/** Memory for a body that is collected, at first, bytes. */
const FIRST_BODY_BYTES = 16 * 1024;

export class ResponseReader implements Dispatcher.DispatchHandler {
  readonly #request: HttpRequest;
  readonly #events: ReaderEvents;
  #isOver = false;
  #status = 0;
  #headers: Record<string, string> = {};
  /** Where the body goes: the target, or memory that grows. */
  #memory: Uint8Array = NO_BYTES;
  #isForTarget = false;
  #bodyBytes = 0;
  #maxBytes = 0;

  constructor(request: HttpRequest, events: ReaderEvents) {
    this.#request = request;
    this.#events = events;
  }

  get hasHead(): boolean {
    return this.#status !== 0;
  }

  get bodyBytes(): number {
    return this.#bodyBytes;
  }

  /** Nothing is written any more, and no event comes. */
  stop(): void {
    this.#isOver = true;
    this.#memory = NO_BYTES;
  }

  onRequestStart(): void {
    if (!this.#isOver) this.#events.started();
  }

  onResponseStart(_controller: unknown, status: number, headers: Headers): void {
    if (this.#isOver) return;
    this.#status = status;
    this.#headers = flatten(headers);
    const { target, method, maxBodyBytes } = this.#request;
    this.#isForTarget = target !== undefined && status < 300;
    if (target === undefined) this.#maxBytes = maxBodyBytes;
    else this.#maxBytes = this.#isForTarget ? target.length : MAX_ERROR_BODY_BYTES;
    const hasNoBody = method === "HEAD" || status === 204 || status === 304;
    const said = hasNoBody ? undefined : this.#headers["content-length"];
    if (said !== undefined && !this.#isFitting(Number(said))) return;
    if (target !== undefined && this.#isForTarget) this.#memory = target;
    // A server may say more than it sends: no more than a little memory is taken for its word.
    else this.#memory = new Uint8Array(Math.min(Number(said ?? 0), FIRST_BODY_BYTES));
    // undici waits for what such a head says of the body that it does not have.
    if (hasNoBody) this.onResponseEnd();
  }

  onResponseData(_controller: unknown, chunk: Buffer): void {
    if (this.#isOver) return;
    const end = this.#bodyBytes + chunk.length;
    if (end > this.#maxBytes) {
      this.#refuse("body-too-long", `has a body longer than ${this.#maxBytes} bytes`);
      return;
    }
    if (end > this.#memory.length) this.#grow(end);
    this.#memory.set(chunk, this.#bodyBytes);
    this.#bodyBytes = end;
  }

  onResponseEnd(): void {
    if (this.#isOver) return;
    if (this.#isForTarget && !this.#isFitting(this.#bodyBytes)) return;
    const body = this.#isForTarget ? NO_BYTES : this.#memory.subarray(0, this.#bodyBytes);
    this.stop();
    this.#events.done({ status: this.#status, headers: this.#headers, body });
  }

  onResponseError(_controller: unknown, error: Error): void {
    if (this.#isOver) return;
    this.stop();
    this.#events.failed(error);
  }

  #grow(needed: number): void {
    const size = Math.max(needed, FIRST_BODY_BYTES, 2 * this.#memory.length);
    const larger = new Uint8Array(Math.min(size, this.#maxBytes));
    larger.set(this.#memory.subarray(0, this.#bodyBytes));
    this.#memory = larger;
  }

  #isFitting(length: number): boolean {
    const max = this.#maxBytes;
    if (this.#isForTarget && length !== max) {
      const kind = length < max ? "body-too-short" : "body-too-long";
      this.#refuse(kind, `has ${length} bytes instead of ${max}`);
      return false;
    }
    if (length > max) this.#refuse("body-too-long", `has a body longer than ${max} bytes`);
    return length <= max;
  }

  #refuse(kind: LengthProblem["kind"], words: string): void {
    this.stop();
    this.#events.refused({ kind, words });
  }
}

function flatten(headers: Headers): Record<string, string> {
  const flat: [string, string][] = [];
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined) continue;
    // undici leaves spaces behind a value.
    const values = Array.isArray(value) ? value : [value];
    flat.push([name, values.map((one) => one.trim()).join(", ")]);
  }
  return Object.fromEntries(flat);
}
