/** What every transport checks of a request before it is sent, so that all refuse the same ones in the same words. */
import { HttpError } from "./http-error.js";
import type { HttpRequest } from "./transport.js";

export interface Target {
  readonly isSecure: boolean;
  /** Without the brackets of an IPv6 address. */
  readonly hostname: string;
  readonly port: number;
  /** `host:port`, for sentences and as a key. */
  readonly label: string;
}

const TOKEN = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not get in.
const UNSENDABLE = /[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]/;

/** @throws HttpError "invalid-request" */
export function checkRequest({ url, headers }: HttpRequest): Target {
  for (const name in headers) {
    if (!TOKEN.test(name)) throw invalid(`a header's name holds characters that cannot be sent`);
    if (UNSENDABLE.test(headers[name] as string)) {
      throw invalid(`the value of the header ${name} holds characters that cannot be sent`);
    }
  }
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw invalid(`${withoutSecrets(url)} is not a URL`);
  }
  const isSecure = parsed.protocol === "https:";
  if (!isSecure && parsed.protocol !== "http:") {
    throw invalid(`${withoutSecrets(url)} starts with neither http:// nor https://`);
  }
  if (/[\s\x7f-\uffff]/.test(url))
    throw invalid(`${withoutSecrets(url)} holds characters that cannot be sent`);
  const hostname = parsed.hostname.replace(/^\[|\]$/g, "");
  const port = parsed.port === "" ? (isSecure ? 443 : 80) : Number(parsed.port);
  return { isSecure, hostname, port, label: `${parsed.hostname}:${port}` };
}

function invalid(message: string): HttpError {
  return new HttpError({ kind: "invalid-request", message });
}

/** A URL for a sentence: without user, password and query, and not endless. */
function withoutSecrets(url: string): string {
  return url
    .slice(0, 200)
    .replace(/[?#].*$/s, "")
    .replace(/\/\/[^/@]*@/, "//")
    .replace(/[^\x20-\x7e]+/g, "?");
}
