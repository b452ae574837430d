/**
 * The SDK's way to the network: its requests go over the one transport (src/http). A caller passes an
 * exchange along with a command and finds the whole response in it; what the SDK itself is shown of a success
 * is only its head, because our own code reads the bodies (answers.ts), more strictly where bytes count and
 * more tolerantly where servers differ. Requests without an exchange are the SDK's own, for credentials.
 */
import { HttpError } from "../http/http-error.js";
import type { HttpRequest, HttpResponse, HttpTransport } from "../http/transport.js";

/** Longest body of a list, bytes: ten thousand blocks are 1 to 2 MiB; some servers send all they have at once. */
const MAX_BODY_BYTES = 64 * 1024 * 1024;
/** Longest response to a request for credentials, bytes. */
const MAX_CREDENTIALS_BYTES = 1024 * 1024;

/** One request and its response, passed to the handler through the options of `client.send`. */
export interface Exchange {
  /** As in HttpRequest. */
  readonly stallMs: number;
  readonly progress?: (bodyBytes: number) => void;
  response?: HttpResponse;
}

/** What the handler needs of the SDK's HttpRequest. */
export interface SdkRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly method: string;
  readonly path: string;
  readonly query?: Record<string, string | string[] | null>;
  readonly headers: Record<string, string>;
  readonly body?: unknown;
}

interface SdkResponse {
  readonly statusCode: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
}

export class RequestHandler {
  readonly metadata = { handlerProtocol: "http/1.1" };
  readonly #transport: HttpTransport;
  readonly #credentialsStallMs: number;

  /** @param credentialsStallMs stall limit of a request for credentials, as in HttpRequest, ms. */
  constructor(transport: HttpTransport, credentialsStallMs: number) {
    this.#transport = transport;
    this.#credentialsStallMs = credentialsStallMs;
  }

  async handle(
    request: SdkRequest,
    options: { readonly abortSignal?: AbortSignal; readonly exchange?: Exchange } = {},
  ): Promise<{ response: SdkResponse }> {
    const { exchange, abortSignal } = options;
    const body = bytesOf(request.body);
    const response = await this.#transport.send(
      {
        method: request.method as HttpRequest["method"],
        url: `${originOf(request)}${request.path}${queryOf(request)}`,
        headers: request.headers,
        maxBodyBytes: exchange === undefined ? MAX_CREDENTIALS_BYTES : MAX_BODY_BYTES,
        stallMs: exchange?.stallMs ?? this.#credentialsStallMs,
        ...(body !== undefined && { body }),
        ...(exchange?.progress !== undefined && { progress: exchange.progress }),
      },
      abortSignal,
    );
    if (exchange === undefined) {
      const { status, headers } = response;
      return { response: { statusCode: status, headers, body: response.body } };
    }
    exchange.response = response;
    return { response: forSdk(response) };
  }

  /** The SDK sets options through this when its configuration is extended; there are none here. */
  updateHttpClientConfig(): void {}

  httpHandlerConfigs(): Record<string, never> {
    return {};
  }

  /** The transport outlives the SDK's clients: its owner closes it. */
  destroy(): void {}
}

/** `https://host:port`; the port only where the SDK gives one. */
export function originOf({ protocol, hostname, port }: SdkRequest): string {
  return `${protocol}//${hostname}${port === undefined ? "" : `:${port}`}`;
}

function forSdk({ status, headers, body }: HttpResponse): SdkResponse {
  if (status >= 300) return { statusCode: status, headers, body };
  const shown: Record<string, string> = {};
  // The date lets the SDK notice and allow for a clock that is wrong.
  for (const name of ["x-amzn-requestid", "date"]) {
    const value = headers[name];
    if (value !== undefined) shown[name] = value;
  }
  return { statusCode: status, headers: shown, body: NO_BYTES };
}

const NO_BYTES = new Uint8Array(0);

function bytesOf(body: unknown): Uint8Array | undefined {
  if (body === undefined || body === null) return undefined;
  if (body instanceof Uint8Array) return body;
  if (typeof body === "string") return Buffer.from(body, "utf8");
  const message = "a request's body must be bytes or text";
  throw new HttpError({ kind: "invalid-request", message });
}

/** With its question mark, escaped as it was signed. */
function queryOf({ query = {} }: SdkRequest): string {
  const parts: string[] = [];
  for (const [name, value] of Object.entries(query).sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (Array.isArray(value)) for (const one of value) parts.push(pair(name, one));
    else parts.push(value === null ? escapeUri(name) : pair(name, value));
  }
  return parts.length === 0 ? "" : `?${parts.join("&")}`;
}

function pair(name: string, value: string): string {
  return `${escapeUri(name)}=${escapeUri(value)}`;
}

/** RFC 3986, as signature v4 counts it: also ! ' ( ) * are escaped. */
export function escapeUri(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
