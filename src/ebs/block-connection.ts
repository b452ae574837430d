/**
 * One kept connection that carries blocks. node:http costs twice as much processor time for a block
 * as everything else together (it reads 64 KiB at a time into new memory, which is then copied and
 * collected). Here the kernel's bytes are read straight into the block's own memory; over TLS, which
 * decrypts into its own buffers, they are copied once.
 *
 * Only what block servers really send is understood (response-head.ts); for the rest the exchange
 * ends with NotPlain and the caller asks again through node:http. One request at a time; a connection
 * that saw anything out of order is closed, never used again. So is one whose answer came before the
 * request's body was all sent: the server would take the next request for the rest of it.
 */
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { WRITE_SIZE } from "./exchange.js";
import { NotPlain, type ResponseHead, readChunkedBody, readResponseHead } from "./response-head.js";
import { AnswerError } from "./trouble.js";

export interface Origin {
  readonly secure: boolean;
  readonly host: string;
  readonly port: number;
}

export interface RawAnswer {
  readonly status: number;
  readonly headers: Record<string, string>;
  /** Empty where the body went into the target. */
  readonly body: Uint8Array;
}

export interface RawRequest {
  /** Request line and headers, with the empty line. */
  readonly head: string;
  readonly body: Uint8Array | undefined;
  /** Where the body of an answer with status 200 goes; it must fill it exactly. */
  readonly target: Uint8Array | undefined;
  /** Bytes moved; false when nobody is interested any more. */
  progress(): boolean;
  end(error: unknown, answer?: RawAnswer): void;
}

/** Largest head, and where it is read into; what is behind it in the same read is copied on. */
const HEAD_SIZE = 16 * 1024;
/** Largest body without a target: an error's message, a put's answer. */
const SMALL_BODY = 256 * 1024;
const NO_BYTES = new Uint8Array(0);

export class BlockConnection {
  readonly #socket: Socket;
  readonly #headBytes = Buffer.allocUnsafeSlow(HEAD_SIZE);
  #headLength = 0;
  #request: RawRequest | undefined;
  /** Bytes of the request's body that are still to be sent. */
  #unsent = 0;
  #head: ResponseHead | undefined;
  /** Where the body goes, and how much of it is there. */
  #body: Uint8Array = NO_BYTES;
  #received = 0;
  #lastError: unknown;
  readonly #idle: () => void;

  /**
   * @param idle called when an answer is complete and the connection can take another request.
   * @param closed called once when it is of no more use.
   */
  constructor(origin: Origin, idle: () => void, closed: () => void) {
    this.#idle = idle;
    const { host, port } = origin;
    if (origin.secure) {
      const servername = isIP(host) === 0 ? { servername: host } : {};
      this.#socket = connectTls({ host, port, ...servername, ALPNProtocols: ["http/1.1"] });
      this.#socket.on("data", (chunk: Uint8Array) => this.#take(chunk));
    } else {
      const onread = {
        buffer: () => this.#space(),
        callback: (length: number, buffer: Uint8Array) => {
          this.#arrived(length, buffer);
          return true;
        },
      };
      this.#socket = connectTcp({ host, port, noDelay: true, onread });
    }
    this.#socket.setNoDelay(true);
    this.#socket.on("error", (error) => {
      this.#lastError = error;
    });
    this.#socket.on("end", () => this.close());
    this.#socket.on("close", () => {
      closed();
      this.#endRequest(this.#lastError ?? this.#cutShort());
    });
  }

  /** The connection must be idle. */
  send(request: RawRequest): void {
    this.#request = request;
    this.#head = undefined;
    this.#headLength = 0;
    this.#socket.ref();
    this.#socket.write(request.head, "latin1");
    this.#unsent = request.body?.length ?? 0;
    if (request.body !== undefined) this.#write(request.body, 0);
  }

  /** An idle connection does not keep the process alive. */
  rest(): void {
    this.#socket.unref();
  }

  /** After it, nothing is written into any target. */
  close(): void {
    this.#socket.destroy();
  }

  #write(body: Uint8Array, from: number): void {
    const request = this.#request;
    if (request === undefined || !request.progress()) return;
    const end = Math.min(from + WRITE_SIZE, body.length);
    this.#unsent = body.length - end;
    this.#socket.write(body.subarray(from, end), (error) => {
      if (!error && this.#request === request && end < body.length) this.#write(body, end);
    });
  }

  /** Where the next bytes are to be read into. */
  #space(): Uint8Array {
    if (this.#head !== undefined) return this.#body.subarray(this.#received);
    return this.#headBytes.subarray(this.#headLength);
  }

  /** Bytes that were read into what #space said. */
  #arrived(length: number, buffer: Uint8Array): void {
    const wanted = this.#head === undefined ? this.#headBytes : this.#body;
    if (buffer.buffer !== wanted.buffer) this.#outOfOrder();
    else if (this.#head === undefined) this.#headArrived(length);
    else this.#bodyArrived(length);
  }

  /** Bytes that lie elsewhere. */
  #take(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; ) {
      const space = this.#space();
      if (space.length === 0) {
        this.#outOfOrder();
        return;
      }
      const part = chunk.subarray(at, at + space.length);
      space.set(part);
      at += part.length;
      if (this.#head === undefined) this.#headArrived(part.length);
      else this.#bodyArrived(part.length);
      if (this.#socket.destroyed) return;
    }
  }

  #headArrived(length: number): void {
    const from = Math.max(0, this.#headLength - 3);
    this.#headLength += length;
    if (this.#request === undefined || !this.#request.progress()) {
      this.#outOfOrder();
      return;
    }
    const bytes = this.#headBytes.subarray(0, this.#headLength);
    const end = bytes.indexOf("\r\n\r\n", from, "latin1");
    if (end < 0) {
      if (this.#headLength === HEAD_SIZE) this.#outOfOrder();
      return;
    }
    const head = readResponseHead(bytes.toString("latin1", 0, end));
    const target = head?.status === 200 ? this.#request.target : undefined;
    if (head === undefined || (target !== undefined && head.length === undefined)) {
      this.#outOfOrder();
      return;
    }
    if (target !== undefined && head.length !== target.length) {
      this.#fail(wrongLength(head.length as number, target.length));
      return;
    }
    const rest = bytes.subarray(end + 4);
    const size = head.length ?? SMALL_BODY;
    if (rest.length > size || (target === undefined && size > SMALL_BODY)) {
      this.#outOfOrder();
      return;
    }
    this.#head = head;
    this.#body = target ?? (size === 0 ? NO_BYTES : new Uint8Array(size));
    this.#body.set(rest);
    this.#received = 0;
    this.#bodyArrived(rest.length);
  }

  #bodyArrived(length: number): void {
    const head = this.#head as ResponseHead;
    this.#received += length;
    if (this.#request === undefined || !this.#request.progress()) {
      this.close();
      return;
    }
    if (head.length === undefined) this.#chunkArrived(head);
    else if (this.#received === head.length) {
      this.#complete(head, this.#body === this.#request.target ? NO_BYTES : this.#body);
    }
  }

  #chunkArrived(head: ResponseHead): void {
    try {
      const body = readChunkedBody(this.#body.subarray(0, this.#received));
      if (body !== undefined) this.#complete(head, body);
      else if (this.#received === this.#body.length) this.#outOfOrder();
    } catch (error) {
      this.#fail(error);
    }
  }

  #complete(head: ResponseHead, body: Uint8Array): void {
    // From here on nothing of this answer's memory is held.
    this.#head = undefined;
    this.#headLength = 0;
    this.#body = NO_BYTES;
    this.#endRequest(undefined, { status: head.status, headers: head.headers, body });
    if (head.keepAlive && this.#unsent === 0) this.#idle();
    else this.close();
  }

  #outOfOrder(): void {
    this.#fail(new NotPlain());
  }

  #fail(error: unknown): void {
    this.#endRequest(error);
    this.close();
  }

  #endRequest(error: unknown, answer?: RawAnswer): void {
    const request = this.#request;
    this.#request = undefined;
    request?.end(error, answer);
  }

  #cutShort(): unknown {
    if (this.#head !== undefined) {
      const short = `the answer's body was cut short after ${this.#received} bytes.`;
      return new AnswerError("soon", "BodyCutShort", short);
    }
    return Object.assign(new Error("the connection was closed"), { code: "ECONNRESET" });
  }
}

function wrongLength(length: number, wanted: number): AnswerError {
  const name = length < wanted ? "BodyTooShort" : "BodyTooLong";
  const sentence = `the answer's body has ${length} bytes instead of ${wanted}.`;
  return new AnswerError("corrupt", name, sentence);
}
