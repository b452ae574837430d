/** The options of an easy handle that do not change from request to request, and those of its route. */
import { AUTH_BASIC, HTTP_1_1, OPTION, PROTOCOL_HTTP_AND_HTTPS, TLS_1_2 } from "./constants.js";
import type { CurlLibrary, Pointer } from "./library.js";
import { proxyUrl, type Route } from "./route.js";

/** What libcurl reads at a time, bytes: 64 KiB is as good as 512. */
const BUFFER_BYTES = 64 * 1024;
/**
 * What it sends at a time, bytes: with 64 KiB a put of 512 KiB costs the server a third more processor time, in
 * ever so many small reads. Taken by each handle that sends a body.
 */
const UPLOAD_BUFFER_BYTES = 512 * 1024;

export interface FixedOptions {
  /** Callbacks of connections, made by CurlLibrary.onSocket and onClose. */
  readonly onSocket: Pointer;
  readonly onClose: Pointer;
  /** Of the certificate authorities; undefined leaves libcurl its own. */
  readonly caFile: string | undefined;
}

/** @param number of the handle, which no other of the transport has. */
export function setFixedOptions(
  curl: CurlLibrary,
  easy: Pointer,
  number: number,
  { onSocket, onClose, caFile }: FixedOptions,
): void {
  curl.setLong(easy, OPTION.NOSIGNAL, 1);
  curl.setLong(easy, OPTION.HTTP_VERSION, HTTP_1_1);
  curl.setLong(easy, OPTION.HTTP09_ALLOWED, 0);
  curl.setLong(easy, OPTION.PROTOCOLS, PROTOCOL_HTTP_AND_HTTPS);
  curl.setLong(easy, OPTION.SSLVERSION, TLS_1_2);
  curl.setLong(easy, OPTION.PROXY_SSLVERSION, TLS_1_2);
  curl.setLong(easy, OPTION.BUFFERSIZE, BUFFER_BYTES);
  curl.setLong(easy, OPTION.UPLOAD_BUFFERSIZE, UPLOAD_BUFFER_BYTES);
  curl.setLong(easy, OPTION.TCP_KEEPALIVE, 1);
  curl.setLong(easy, OPTION.PATH_AS_IS, 1);
  curl.setLong(easy, OPTION.SUPPRESS_CONNECT_HEADERS, 1);
  curl.setLong(easy, OPTION.PROXYAUTH, AUTH_BASIC);
  curl.setPointer(easy, OPTION.SOCKOPTFUNCTION, onSocket);
  curl.setPointer(easy, OPTION.SOCKOPTDATA, BigInt(number));
  curl.setPointer(easy, OPTION.CLOSESOCKETFUNCTION, onClose);
  // An empty proxy keeps libcurl from reading the environment.
  curl.setText(easy, OPTION.PROXY, "");
  curl.setText(easy, OPTION.NOPROXY, "");
  if (caFile === undefined) return;
  curl.setText(easy, OPTION.CAINFO, caFile);
  curl.setText(easy, OPTION.PROXY_CAINFO, caFile);
  // With a folder beside the file, libcurl reads the whole bundle again for each connection.
  curl.setText(easy, OPTION.CAPATH, null);
  curl.setText(easy, OPTION.PROXY_CAPATH, null);
}

/**
 * The route that a handle is set to. libcurl shares kept connections between handles, by host name; so the
 * host, or the proxy, goes by a name here that no other handle has, and each handle has its own connections.
 * A proxy over TLS keeps its name, which its certificate has: such connections are shared.
 */
export class SetRoute {
  readonly #curl: CurlLibrary;
  readonly #easy: Pointer;
  readonly #prefix: string;
  #key: string | undefined;
  #lists: Pointer[] = [];

  /** @param number of the handle, which no other has. */
  constructor(curl: CurlLibrary, easy: Pointer, number: number) {
    this.#curl = curl;
    this.#easy = easy;
    this.#prefix = `connection-${number}`;
  }

  /** Whether connections over this route are the handle's own. */
  isOwn({ proxy }: Route): boolean {
    return proxy?.isSecure !== true;
  }

  set(route: Route): void {
    const { proxy, key, port, addresses } = route;
    if (key === this.#key) return;
    const curl = this.#curl;
    const easy = this.#easy;
    // Another host has another name, whatever libcurl compares beside it.
    const alias = `${this.#prefix}.${route.peer}`;
    const isAliased = this.isOwn(route);
    const name = isAliased ? alias : (proxy?.host ?? "");
    const connectTo = proxy === undefined ? this.#list(`::${alias}:${port}`) : null;
    const resolve = this.#list(`${name}:${port}:${addresses}`);
    curl.setPointer(easy, OPTION.CONNECT_TO, connectTo);
    curl.setPointer(easy, OPTION.RESOLVE, resolve);
    curl.setText(easy, OPTION.PROXY, proxy === undefined ? "" : proxyUrl({ ...proxy, host: name }));
    curl.setText(easy, OPTION.PROXYUSERNAME, proxy?.user ?? null);
    curl.setText(easy, OPTION.PROXYPASSWORD, proxy?.password ?? null);
    for (const list of this.#lists.splice(0)) curl.freeTexts(list);
    for (const list of [connectTo, resolve]) if (list !== null) this.#lists.push(list);
    this.#key = key;
  }

  /** The handle must not begin a transfer any more. */
  free(): void {
    for (const list of this.#lists.splice(0)) this.#curl.freeTexts(list);
  }

  #list(text: string): Pointer | null {
    return this.#curl.appendText(null, text);
  }
}
