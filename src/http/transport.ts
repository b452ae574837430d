/**
 * How requests go out: one HTTP/1.1 request, one whole response. Two transports implement this, libcurl
 * (curl/) and undici (undici/), and every test in test/http/conformance runs against both. Nothing above
 * this folder knows which of them is in use.
 *
 * The contract:
 * - A response is whole or an error. A body that is cut short, or whose length is not what its head or the
 *   target says, is an HttpError, never a shorter body.
 * - After `send` has settled, whether with a response, an error or an abort, nothing writes into the target
 *   or reads the body any more. It settles after an abort as soon as that is certain.
 * - A request ends when no byte of it moves for `stallMs`; no other time limit is here.
 * - Redirects are not followed; there are no cookies, no .netrc, no compression. TLS is 1.2 or later, and
 *   verified. Interim (1xx) responses are skipped.
 * - A request that finds its kept connection closed by the server is sent once more over a new one by the
 *   transport itself, if no line of the response has come.
 */

/** Longest head of a response with all its interim ones, bytes; a longer one is an HttpError "head-too-long". */
export const MAX_HEAD_BYTES = 64 * 1024;
/** Longest body of an error response (status 300 and above) to a request with a target, bytes. */
export const MAX_ERROR_BODY_BYTES = 256 * 1024;

export interface HttpRequest {
  readonly method: "GET" | "PUT" | "POST" | "DELETE" | "HEAD";
  /** Absolute, http: or https:. Path and query go over the wire exactly as they stand here. */
  readonly url: string;
  /** Sent as they are, `host` included if given; values are Latin-1 without control characters. */
  readonly headers: Readonly<Record<string, string>>;
  /** Must not change until the request has settled. */
  readonly body?: Uint8Array;
  /**
   * Takes the body of a successful response (status 200 to 299), which must fill it exactly. Its content is
   * undefined until the request succeeds. The body of an error goes into HttpResponse.body.
   */
  readonly target?: Uint8Array;
  /** Longest body of a response without a target, bytes; a longer one is an HttpError "body-too-long". */
  readonly maxBodyBytes: number;
  /** Longest pause in which no byte moves, connecting included, ms. */
  readonly stallMs: number;
  /**
   * Called now and then (at most a few times a second) while bytes of the request's or the response's body move.
   * @param bodyBytes how many have, of both.
   */
  readonly progress?: (bodyBytes: number) => void;
}

export interface HttpResponse {
  readonly status: number;
  /** Names in lower case; values of a name that comes twice are joined with ", ". */
  readonly headers: Readonly<Record<string, string>>;
  /** Empty where the body went into the target. */
  readonly body: Uint8Array;
}

/** Sends requests; each thread has its own. */
export interface HttpTransport {
  /** For the log and `status`: `libcurl 7.88.1, OpenSSL/3.0.19`, `undici 7.30.2`. */
  readonly description: string;
  /** @throws HttpError, also where the signal is aborted. */
  send(request: HttpRequest, signal?: AbortSignal): Promise<HttpResponse>;
  /** Ends what is under way with "closed", closes all connections; idempotent. */
  close(): Promise<void>;
}

/** What a transport is made of; plain data, so that it can go to another thread. */
export interface TransportSettings {
  /** Connections at most; further requests wait for one. */
  readonly maxConnections: number;
  readonly trust: Trust;
  readonly proxies: ProxySettings;
}

/** The certificate authorities that servers' certificates are checked against. */
export interface Trust {
  /** A PEM file, and PEM text beside it; the transport reads the file, at each new connection if it likes. */
  readonly file?: string;
  readonly extraPem?: string;
}

/** As the environment says it; see proxies.ts. */
export interface ProxySettings {
  readonly httpProxy?: string;
  readonly httpsProxy?: string;
  readonly noProxy?: string;
}
