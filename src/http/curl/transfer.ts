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
import { isHttp1, readFinalHeaders, wrongLength } from "../response-head.js";
import {
  type HttpRequest,
  type HttpResponse,
  MAX_ERROR_BODY_BYTES,
  MAX_HEAD_BYTES,
} from "../transport.js";
import { CODE, INFO, OPTION } from "./constants.js";
import { bodyTooLong, curlError } from "./curl-error.js";
import { type FixedOptions, SetRoute, setFixedOptions } from "./easy-options.js";
import type { CLibrary, CurlLibrary, Pointer } from "./library.js";

/** Size of libcurl's error buffer. Source: CURL_ERROR_SIZE. */
const ERROR_SIZE = 256;
const NO_BYTES = new Uint8Array(0);
/** Memory that a handle keeps between requests, bytes: the response to a put, an error's body. */
const KEPT_BYTES = 256 * 1024;
/** A body of no bytes still needs an address. */
const ONE_BYTE = new Uint8Array(8);
/** Headers that libcurl writes itself, from what it sends. */
const OWN_HEADERS = new Set(["content-length", "transfer-encoding", "expect", "connection"]);

/** Where a request goes, for its errors; `host:port`. */
export interface Destination {
  readonly host: string;
  readonly proxy: string | undefined;
  /** Through the proxy by CONNECT. */
  readonly isTunnelled: boolean;
}

export class Transfer {
  readonly easy: Pointer;
  readonly number: number;
  readonly route: SetRoute;
  readonly #curl: CurlLibrary;
  readonly #c: CLibrary;
  /** One 64-bit number, low half first. */
  readonly #number = new Uint32Array(2);
  readonly #words = Buffer.alloc(ERROR_SIZE);
  readonly #head = Buffer.alloc(MAX_HEAD_BYTES);
  #headStream: Pointer | null = null;
  #bodyStream: Pointer | null = null;
  #headers: Pointer | null = null;
  /** Anonymous memory for a body without a target; kept where it is no more than KEPT_BYTES. */
  #mapped: Pointer | null = null;
  #mappedBytes = 0;
  #writesMapped = false;
  #request: HttpRequest | undefined;

  /** @param number of the handle, which no other of the transport has. */
  constructor(curl: CurlLibrary, c: CLibrary, options: FixedOptions, number: number) {
    this.#curl = curl;
    this.#c = c;
    this.number = number;
    this.easy = curl.easyInit();
    this.route = new SetRoute(curl, this.easy, number);
    setFixedOptions(curl, this.easy, number, options);
    curl.setPointer(this.easy, OPTION.ERRORBUFFER, this.#words);
  }

  /** Longest body that the response may have, bytes: an error's, too, where it is written into the target. */
  #limit({ target, maxBodyBytes }: HttpRequest): number {
    return target === undefined ? maxBodyBytes : Math.max(target.length, MAX_ERROR_BODY_BYTES);
  }

  /** A target that is shorter than an error's body is filled only at the end. */
  #writesInto({ target }: HttpRequest): Uint8Array | undefined {
    return target !== undefined && target.length >= MAX_ERROR_BODY_BYTES ? target : undefined;
  }

  /** Makes the handle ready to be added. @throws HttpError "invalid-request"; then `end` must be called. */
  begin(request: HttpRequest): void {
    const { easy } = this;
    const curl = this.#curl;
    const limit = this.#limit(request);
    this.#request = request;
    this.#words[0] = 0;
    this.#headStream = this.#c.openMemory(this.#head, MAX_HEAD_BYTES);
    const target = this.#writesInto(request);
    this.#writesMapped = target === undefined;
    if (target === undefined) this.#map(Math.max(limit, 1));
    const memory = target ?? this.#mapped;
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

  #map(bytes: number): void {
    if (bytes <= this.#mappedBytes) return;
    this.#unmap();
    this.#mapped = this.#c.map(Math.max(bytes, KEPT_BYTES));
    this.#mappedBytes = this.#mapped === null ? 0 : Math.max(bytes, KEPT_BYTES);
  }

  #unmap(): void {
    if (this.#mapped !== null) this.#c.unmap(this.#mapped, this.#mappedBytes);
    this.#mapped = null;
    this.#mappedBytes = 0;
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
    const list = /^[\x20-\x7e\t]*$/.test(line)
      ? this.#curl.appendText(this.#headers, line)
      : this.#curl.appendBytes(this.#headers, Buffer.from(`${line}\0`, "latin1"));
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
    const { host } = destination;
    const status = this.#info(INFO.RESPONSE_CODE);
    const head = this.#headText(headBytes);
    if (!isHttp1(head)) {
      const message = `what ${host} sent is not HTTP/1.1`;
      throw new HttpError({ kind: "protocol", message, host });
    }
    const headers = readFinalHeaders(head);
    if (headers === undefined) {
      const message = `the connection to ${host} ended inside the response's head`;
      throw new HttpError({ kind: "lost", message, host });
    }
    const wrong = wrongLength(headers);
    if (wrong !== undefined) {
      const message = `the response of ${host} ${wrong}`;
      throw new HttpError({ kind: "protocol", message, host });
    }
    if (status === 407 && destination.proxy !== undefined) {
      const message = `the proxy ${destination.proxy} wants a user and password (status 407)`;
      throw new HttpError({ kind: "proxy", message, host, proxy: destination.proxy });
    }
    return { status, headers, body: this.#bodyOf(request, status, bodyBytes, host) };
  }

  #bodyOf(request: HttpRequest, status: number, bodyBytes: number, host: string): Uint8Array {
    const { target } = request;
    if (target === undefined) return this.#copyOfMapped(bodyBytes);
    if (status >= 300) {
      if (bodyBytes > MAX_ERROR_BODY_BYTES) throw bodyTooLong(host, MAX_ERROR_BODY_BYTES);
      // The error's words lie where the block would.
      const into = this.#writesInto(request);
      return into?.slice(0, bodyBytes) ?? this.#copyOfMapped(bodyBytes);
    }
    if (bodyBytes > target.length) throw bodyTooLong(host, target.length);
    if (bodyBytes < target.length) {
      const message = `the response of ${host} has ${bodyBytes} bytes instead of ${target.length}`;
      throw new HttpError({ kind: "body-too-short", message, host });
    }
    if (this.#writesMapped && this.#mapped !== null) {
      this.#c.copy(target, this.#mapped, bodyBytes);
    }
    return NO_BYTES;
  }

  /**
   * Whether the response is whole although libcurl goes on sending the request's body, to a server that has
   * responded and reads no more; or is one that libcurl waits behind for ever.
   */
  get isAnsweredEarly(): boolean {
    const status = this.#info(INFO.RESPONSE_CODE);
    if (status < 200) return false;
    const headers = readFinalHeaders(this.#headText(this.#position(this.#headStream)));
    return headers?.["content-length"] === String(this.#position(this.#bodyStream));
  }

  /** A success whose body is longer than a target that it is not written into. */
  get isTooLong(): boolean {
    const target = this.#request?.target;
    if (target === undefined || !this.#writesMapped) return false;
    const status = this.#info(INFO.RESPONSE_CODE);
    if (status < 200 || status >= 300) return false;
    const length = Math.max(this.#info(INFO.CONTENT_LENGTH), this.#position(this.#bodyStream));
    return length > target.length;
  }

  /** The server has changed to another protocol (status 101), which was not asked for. */
  get isUpgraded(): boolean {
    return this.#info(INFO.RESPONSE_CODE) === 101;
  }

  #headText(length: number): string {
    return this.#head.toString("latin1", 0, length);
  }

  #failure(code: number, headBytes: number, bodyBytes: number, to: Destination): HttpError {
    const end = this.#words.indexOf(0);
    const words = this.#words.toString("latin1", 0, end < 0 ? ERROR_SIZE : end);
    return curlError({
      code,
      words: words === "" ? this.#curl.explain(code) : words,
      osError: this.#info(INFO.OS_ERRNO),
      connectStatus: this.#info(INFO.HTTP_CONNECTCODE),
      bodyBytes,
      isInHead: bodyBytes === 0 && readFinalHeaders(this.#headText(headBytes)) === undefined,
      maxBodyBytes: this.#limit(this.#request as HttpRequest),
      host: to.host,
      proxy: to.proxy,
      isTunnelled: to.isTunnelled,
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
    if (this.#mappedBytes > KEPT_BYTES) this.#unmap();
    this.#headers = null;
    this.#headStream = null;
    this.#bodyStream = null;
    this.#request = undefined;
  }

  /**
   * Bytes of the request's and the response's body that have moved.
   * @param sent what the peer has acknowledged since the transfer began, its head included.
   */
  bodyBytes(sent: number): number {
    const body = this.#request?.body?.length ?? 0;
    return this.#info(INFO.SIZE_DOWNLOAD) + Math.min(Math.max(0, sent), body);
  }

  /** A number that grows whenever libcurl has got further with this request. */
  get progress(): number {
    const head = this.#info(INFO.HEADER_SIZE) + (this.isConnected ? 1 : 0);
    return this.#info(INFO.SIZE_DOWNLOAD) + this.#info(INFO.SIZE_UPLOAD) + head;
  }

  /**
   * The connection is made, to the proxy where there is one. libcurl 7 has a local port from then on, but a time
   * only after TLS; libcurl 8 has the port while it still connects. Of a kept one there may be neither.
   */
  get isConnected(): boolean {
    const isSeven = this.#curl.versionNumber < 0x080000;
    const sign = isSeven ? INFO.LOCAL_PORT : INFO.CONNECT_TIME;
    return this.#info(sign) !== 0 || this.#info(INFO.PRETRANSFER_TIME) > 0;
  }

  /** Descriptor of the connection, once the transfer has ended and if it is kept; else -1. */
  get socket(): number {
    return this.#info(INFO.ACTIVE_SOCKET) | 0;
  }

  close(): void {
    this.#curl.easyCleanup(this.easy);
    this.route.free();
    this.#unmap();
  }

  #position(stream: Pointer | null): number {
    return stream === null ? 0 : Number(this.#c.position(stream));
  }

  #info(info: number): number {
    this.#number.fill(0);
    this.#curl.getNumber(this.easy, info, this.#number);
    return (this.#number[0] as number) + ((this.#number[1] as number) | 0) * 2 ** 32;
  }
}
