/**
 * Stands between a socket and undici's parser, and lets the head of a response through as a whole. undici
 * takes a 100 for an error and counts the bytes of a head's fields only, one head at a time; here interim
 * responses are taken out, and a head is at most MAX_HEAD_BYTES with all of them, status line included. It
 * also knows whether a byte of the response has come, which decides whether a request may be sent again.
 *
 * It replaces the socket's `read`, which is how undici takes bytes. A body passes through it uncopied.
 */
import type { Socket } from "node:net";
import { MAX_HEAD_BYTES } from "../transport.js";

/** Why the gate ends a response. */
export type GateRefusal = "head-too-long" | "switched" | "tls";

const CR = 13;
const LF = 10;
/** Enough of a head to know what it is. */
const START_BYTES = 16;
const INTERIM = /^HTTP\/1\.[01] 1\d\d[ \r\n]/;
const SWITCHED = /^HTTP\/1\.[01] 101[ \r\n]/;
/** First bytes of a TLS alert or handshake record. Source: RFC 8446, 5.1. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const TLS_RECORD = /^[\x15\x16]\x03/;

export class HeadGate {
  readonly #refuse: (why: GateRefusal) => void;
  #isInHead = false;
  /** Bytes of this response's heads so far. */
  #headBytes = 0;
  /** Line ends in a row: two of them end a head. */
  #lineEnds = 0;
  /** The first bytes of the head, without line ends before it. */
  #start = "";
  /** A head whose end has not come; made where one comes in parts. */
  #held: Buffer | undefined;
  #heldBytes = 0;
  #received = 0;

  /** @param refuse ends the request and its connection. */
  constructor(socket: Socket, refuse: (why: GateRefusal) => void) {
    this.#refuse = refuse;
    const read = socket.read.bind(socket);
    socket.read = (size?: number): Buffer | null => {
      for (;;) {
        const chunk = read(size) as Buffer | null;
        if (chunk === null) return null;
        const passed = this.#pass(chunk);
        if (passed !== undefined) return passed;
      }
    };
  }

  /** Bytes since the request began. */
  get received(): number {
    return this.#received;
  }

  /** A request goes out: what comes next is a head. */
  begin(): void {
    this.#headBytes = 0;
    this.#received = 0;
    this.#beginHead();
  }

  #beginHead(): void {
    this.#isInHead = true;
    this.#lineEnds = 0;
    this.#start = "";
    this.#heldBytes = 0;
  }

  /** What the parser may have of a chunk, with what was held before it. */
  #pass(chunk: Buffer): Buffer | undefined {
    this.#received += chunk.length;
    let rest = chunk;
    while (this.#isInHead) {
      const end = this.#findHeadEnd(rest);
      this.#headBytes += end ?? rest.length;
      if (this.#headBytes > MAX_HEAD_BYTES) return this.#end("head-too-long");
      if (TLS_RECORD.test(this.#start)) return this.#end("tls");
      if (end === undefined) {
        // What is no HTTP has no end to wait for: the parser says so at once.
        const isHttp = "HTTP/".startsWith(this.#start.slice(0, 5));
        return isHttp ? this.#hold(rest) : this.#open(rest);
      }
      if (SWITCHED.test(this.#start)) return this.#end("switched");
      if (!INTERIM.test(this.#start)) return this.#open(rest);
      this.#beginHead();
      rest = rest.subarray(end);
      if (rest.length === 0) return undefined;
    }
    return rest;
  }

  /** Index behind the empty line, which need not have come. Line ends before a head are no part of it. */
  #findHeadEnd(bytes: Buffer): number | undefined {
    for (let at = 0; at < bytes.length; at += 1) {
      const byte = bytes[at] as number;
      if (byte === LF) {
        if (this.#start !== "") this.#lineEnds += 1;
        if (this.#lineEnds === 2) return at + 1;
      } else if (byte !== CR) {
        this.#lineEnds = 0;
      }
      const isLeading = this.#start === "" && (byte === CR || byte === LF);
      if (this.#start.length < START_BYTES && !isLeading) this.#start += String.fromCharCode(byte);
    }
    return undefined;
  }

  #hold(bytes: Buffer): undefined {
    this.#held ??= Buffer.allocUnsafe(MAX_HEAD_BYTES);
    this.#heldBytes += bytes.copy(this.#held, this.#heldBytes);
  }

  #open(rest: Buffer): Buffer {
    const held = this.#held?.subarray(0, this.#heldBytes);
    const all = held === undefined || held.length === 0 ? rest : Buffer.concat([held, rest]);
    this.#isInHead = false;
    this.#held = undefined;
    return all;
  }

  #end(why: GateRefusal): undefined {
    this.#isInHead = false;
    this.#held = undefined;
    this.#refuse(why);
  }
}
