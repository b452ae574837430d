/**
 * Why a request has no response, in terms that do not depend on the transport. What to do about it is
 * decided above (src/ebs); here is what happened, in words for a person.
 */

/**
 * - "invalid-request": it cannot be sent as it stands (a URL without a scheme, a control character in a header).
 * - "name": the host's name was not found. "unreachable": no connection (refused, no route, timed out).
 * - "proxy": the proxy refused, or cannot be reached. "certificate": the server's certificate was not accepted.
 *   "tls": TLS failed otherwise. "protocol": what came is not HTTP/1.x.
 * - "stalled": nothing moved for stallMs. "lost": the connection ended before a response.
 *   "body-cut-short": it ended inside the body.
 * - "body-too-short", "body-too-long": a body of another length than the target, or longer than allowed.
 *   "head-too-long": see MAX_HEAD_BYTES.
 * - "aborted": by the caller's signal. "closed": the transport was closed.
 */
export type HttpErrorKind =
  | "invalid-request"
  | "name"
  | "unreachable"
  | "proxy"
  | "certificate"
  | "tls"
  | "protocol"
  | "stalled"
  | "lost"
  | "body-cut-short"
  | "body-too-short"
  | "body-too-long"
  | "head-too-long"
  | "aborted"
  | "closed";

/** Plain data, so that it can go to another thread; `new HttpError(details)` is the way back. */
export interface HttpErrorDetails {
  readonly kind: HttpErrorKind;
  /**
   * What happened, without a capital and without an end mark, to stand in a sentence: `cannot connect to
   * ebs.eu-central-1.amazonaws.com (10.0.0.1:443): connection refused`. Names host, address and proxy; never a
   * user, password or query.
   */
  readonly message: string;
  /** The host that was meant, and the proxy between, each `host:port`, where there was one. */
  readonly host?: string;
  readonly proxy?: string;
}

export class HttpError extends Error {
  override readonly name = "HttpError";
  readonly kind: HttpErrorKind;
  readonly host: string | undefined;
  readonly proxy: string | undefined;

  constructor(details: HttpErrorDetails, options?: { cause?: unknown }) {
    super(details.message, options);
    this.kind = details.kind;
    this.host = details.host;
    this.proxy = details.proxy;
  }

  details(): HttpErrorDetails {
    return {
      kind: this.kind,
      message: this.message,
      ...(this.host !== undefined && { host: this.host }),
      ...(this.proxy !== undefined && { proxy: this.proxy }),
    };
  }
}

/** The message, with the host that was meant where it tells only of the proxy before it. */
export function messageWithHost({ message, host, proxy }: HttpError): string {
  const isHidden = host !== undefined && proxy !== undefined && !message.includes(host);
  return isHidden ? `${message}, on the way to ${host}` : message;
}

/** The request ended because its caller, or the transport's, wanted so. */
export function abortError(kind: "aborted" | "closed", host?: string): HttpError {
  const message = kind === "aborted" ? "the request was aborted" : "the transport was closed";
  return new HttpError({ kind, message, ...(host !== undefined && { host }) });
}
