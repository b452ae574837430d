/**
 * One easy handle of libcurl, used for one request after another. No byte of a body passes through
 * JavaScript: libcurl writes a response with fwrite, its default, into a memory stream over the caller's
 * target, and sends a request's body from where it lies.
 *
 * The stream is over exactly the memory that the response may fill, so what is longer ends the transfer. A
 * response whose length is not known beforehand goes into anonymous memory of the longest length allowed,
 * which costs only what is written.
 */
import { HttpError } from "../http-error.js";
import { readFinalHeaders } from "../response-head.js";
import {
  type HttpRequest,
  type HttpResponse,
  MAX_ERROR_BODY_BYTES,
  MAX_HEAD_BYTES,
} from "../transport.js";
import { CODE, INFO, OPTION } from "./constants.js";
import { curlError } from "./curl-error.js";
import type { CLibrary, CurlLibrary, Pointer } from "./library.js";

/** Size of libcurl's error buffer. Source: CURL_ERROR_SIZE. */
const ERROR_SIZE = 256;
const NO_BYTES = new Uint8Array(0);
/** A body of no bytes still needs an address. */
const ONE_BYTE = new Uint8Array(8);
/** Headers that libcurl writes itself, from what it sends. */
const OWN_HEADERS = new Set(["content-length", "transfer-encoding", "expect", "connection"]);

/** Where a request goes, for its errors; `host:port`. */
export interface Destination {
  readonly host: string;
  readonly proxy: string | undefined;
}

export class Transfer {
  readonly easy: Pointer;
  readonly #curl: CurlLibrary;
  readonly #c: CLibrary;
  /** One 64-bit number, low half first. */
  readonly #number = new Uint32Array(2);
  readonly #words = Buffer.alloc(ERROR_SIZE);
  readonly #head = Buffer.alloc(MAX_HEAD_BYTES);
  #headStream: Pointer | null = null;
  #bodyStream: Pointer | null = null;
  #headers: Pointer | null = null;
  /** Anonymous memory for a body without a target. */
  #mapped: Pointer | null = null;
  #mappedBytes = 0;
  #request: HttpRequest | undefined;

  constructor(curl: CurlLibrary, c: CLibrary) {
    this.#curl = curl;
    this.#c = c;
    this.easy = curl.easyInit();
    curl.setPointer(this.easy, OPTION.ERRORBUFFER, this.#words);
  }

  /** Longest body that the response may have, bytes. */
  #limit(request: HttpRequest): number {
    return request.target?.length ?? request.maxBodyBytes;
  }

  /** Makes the handle ready to be added. @throws HttpError "invalid-request"; then `end` must be called. */
  begin(request: HttpRequest): void {
    const { easy } = this;
    const curl = this.#curl;
    const limit = this.#limit(request);
    this.#request = request;
    this.#words[0] = 0;
    this.#headStream = this.#c.openMemory(this.#head, MAX_HEAD_BYTES);
    if (request.target === undefined) {
      this.#mappedBytes = Math.max(limit, 1);
      this.#mapped = this.#c.map(this.#mappedBytes);
    }
    const memory = request.target ?? this.#mapped;
    this.#bodyStream = memory === null ? null : this.#c.openMemory(memory, Math.max(limit, 1));
    if (this.#headStream === null || this.#bodyStream === null) {
      throw new HttpError({ kind: "lost", message: "there is no memory for a response" });
    }
    curl.setPointer(easy, OPTION.HEADERDATA, this.#headStream);
    curl.setPointer(easy, OPTION.WRITEDATA, this.#bodyStream);
    curl.setLong(easy, OPTION.MAXFILESIZE_LARGE, limit);
    this.#setMethod(request);
    this.#setHeaders(request);
    curl.setText(easy, OPTION.URL, request.url);
  }

  #setMethod({ method, body }: HttpRequest): void {
    const curl = this.#curl;
    const sendsBody = body !== undefined || method === "POST" || method === "PUT";
    if (sendsBody) {
      const bytes = body === undefined || body.length === 0 ? ONE_BYTE : body;
      curl.setLong(this.easy, OPTION.POSTFIELDSIZE, body?.length ?? 0);
      curl.setPointer(this.easy, OPTION.POSTFIELDS, bytes);
    } else {
      curl.setLong(this.easy, OPTION.HTTPGET, 1);
      if (method === "HEAD") curl.setLong(this.easy, OPTION.NOBODY, 1);
    }
    const isDefault = sendsBody ? method === "POST" : method === "GET" || method === "HEAD";
    curl.setText(this.easy, OPTION.CUSTOMREQUEST, isDefault ? null : method);
  }

  #setHeaders({ headers }: HttpRequest): void {
    const names = new Set<string>();
    for (const [name, value] of Object.entries(headers)) {
      const lower = name.toLowerCase();
      names.add(lower);
      if (OWN_HEADERS.has(lower)) continue;
      // An empty value is written with a semicolon; with a colon libcurl leaves the header out.
      this.#addHeader(value === "" ? `${name};` : `${name}: ${value}`);
    }
    // What libcurl would add by itself.
    this.#addHeader("Expect:");
    if (!names.has("accept")) this.#addHeader("Accept:");
    if (!names.has("content-type")) this.#addHeader("Content-Type:");
    this.#curl.setPointer(this.easy, OPTION.HTTPHEADER, this.#headers);
  }

  #addHeader(line: string): void {
    const list = this.#curl.appendText(this.#headers, line);
    if (list === null)
      throw new HttpError({ kind: "lost", message: "there is no memory for a request" });
    this.#headers = list;
  }

  /**
   * The response of a transfer that ended, and is no more among those that libcurl works on.
   * @throws HttpError
   */
  result(code: number, destination: Destination): HttpResponse {
    const request = this.#request as HttpRequest;
    const bodyBytes = this.#position(this.#bodyStream);
    const headBytes = this.#position(this.#headStream);
    if (code !== CODE.OK) throw this.#failure(code, headBytes, bodyBytes, destination);
    const status = this.#info(INFO.RESPONSE_CODE);
    const headers = readFinalHeaders(this.#head.toString("latin1", 0, headBytes));
    const { target } = request;
    if (target === undefined) return { status, headers, body: this.#copyOfMapped(bodyBytes) };
    if (status >= 300) {
      // The error's words lie where the block would.
      const body = Uint8Array.from(target.subarray(0, Math.min(bodyBytes, MAX_ERROR_BODY_BYTES)));
      return { status, headers, body };
    }
    if (bodyBytes !== target.length) {
      const message = `the response of ${destination.host} has ${bodyBytes} bytes instead of ${target.length}`;
      throw new HttpError({ kind: "body-too-short", message, host: destination.host });
    }
    return { status, headers, body: NO_BYTES };
  }

  #failure(code: number, headBytes: number, bodyBytes: number, to: Destination): HttpError {
    const end = this.#words.indexOf(0);
    const words = this.#words.toString("latin1", 0, end < 0 ? ERROR_SIZE : end);
    return curlError({
      code,
      words: words === "" ? this.#curl.explain(code) : words,
      osError: this.#info(INFO.OS_ERRNO),
      connectStatus: this.#info(INFO.HTTP_CONNECTCODE),
      connected: this.isConnected,
      headBytes,
      bodyBytes,
      headOverflows: bodyBytes === 0 && headBytes >= MAX_HEAD_BYTES - 1,
      maxBodyBytes: this.#limit(this.#request as HttpRequest),
      host: to.host,
      proxy: to.proxy,
    });
  }

  #copyOfMapped(length: number): Uint8Array {
    if (length === 0 || this.#mapped === null) return NO_BYTES;
    const body = Buffer.allocUnsafeSlow(length);
    this.#c.copy(body, this.#mapped, length);
    return body;
  }

  /** Gives back what the request took; the handle can begin another. It must not be added any more. */
  end(): void {
    const curl = this.#curl;
    curl.setPointer(this.easy, OPTION.HTTPHEADER, null);
    curl.setPointer(this.easy, OPTION.WRITEDATA, null);
    curl.setPointer(this.easy, OPTION.HEADERDATA, null);
    if (this.#headers !== null) curl.freeTexts(this.#headers);
    if (this.#headStream !== null) this.#c.closeStream(this.#headStream);
    if (this.#bodyStream !== null) this.#c.closeStream(this.#bodyStream);
    if (this.#mapped !== null) this.#c.unmap(this.#mapped, this.#mappedBytes);
    this.#headers = null;
    this.#headStream = null;
    this.#bodyStream = null;
    this.#mapped = null;
    this.#request = undefined;
  }

  /** Bytes of the request's and the response's body that have moved. */
  get bodyBytes(): number {
    return this.#info(INFO.SIZE_DOWNLOAD) + this.#info(INFO.SIZE_UPLOAD);
  }

  /** A number that grows whenever a byte of this request has moved or its connection got further. */
  get progress(): number {
    return (
      this.bodyBytes +
      this.#info(INFO.HEADER_SIZE) +
      (this.#info(INFO.CONNECT_TIME) > 0 ? 1 : 0) +
      (this.#info(INFO.APPCONNECT_TIME) > 0 ? 1 : 0)
    );
  }

  /** The connection is made, to the proxy where there is one. Of a kept one libcurl has no time of connecting. */
  get isConnected(): boolean {
    return this.#info(INFO.CONNECT_TIME) > 0 || this.#info(INFO.PRETRANSFER_TIME) > 0;
  }

  close(): void {
    this.#curl.easyCleanup(this.easy);
  }

  #position(stream: Pointer | null): number {
    return stream === null ? 0 : Number(this.#c.position(stream));
  }

  #info(info: number): number {
    this.#number.fill(0);
    this.#curl.getNumber(this.easy, info, this.#number);
    return (this.#number[0] as number) + (this.#number[1] as number) * 2 ** 32;
  }
}
