/**
 * Checks AWS signature version 4 of a request, when the endpoint was given credentials to check
 * against. The canonical request is rebuilt from what arrived; the body's hash is the one that was
 * signed: UNSIGNED-PAYLOAD where the client says so, else the hash of the body itself, so a body
 * changed on its way is refused too. Source: AWS General Reference, "Signature Version 4 signing".
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { ServiceError } from "./service-error.js";

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

export interface SignedRequest {
  readonly method: string;
  /** Path and query as they came. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  /** Raw SHA-256 of the body. */
  readonly bodyDigest: Buffer;
}

const AUTHORIZATION =
  /^AWS4-HMAC-SHA256 Credential=([^/,\s]+)\/(\d{8})\/([^/,\s]+)\/ebs\/aws4_request,\s*SignedHeaders=([a-z0-9;_-]+),\s*Signature=([0-9a-f]{64})$/;
/** Largest difference between the clocks of client and server, ms; as the service's own. */
const MAX_SKEW = 15 * 60_000;
const UNSIGNED = "UNSIGNED-PAYLOAD";

function denied(message: string): ServiceError {
  return new ServiceError("AccessDeniedException", message, "UNAUTHORIZED_ACCOUNT");
}

function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function canonicalQuery(query: string): string {
  const pairs = [...new URLSearchParams(query)].map(
    ([name, value]) => `${encode(name)}=${encode(value)}`,
  );
  return pairs.sort().join("&");
}

function canonicalHeaders(names: readonly string[], headers: IncomingHttpHeaders): string {
  return names
    .map((name) => {
      const value = headers[name] ?? "";
      const text = Array.isArray(value) ? value.join(",") : value;
      return `${name}:${text.trim().replace(/\s+/g, " ")}\n`;
    })
    .join("");
}

/** ms since the epoch of `20261124T041500Z`. */
function parseDate(text: string): number {
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text);
  if (parts === null) return Number.NaN;
  const [year, month, day, hour, minute, second] = parts.slice(1).map(Number);
  return Date.UTC(year!, month! - 1, day!, hour!, minute!, second!);
}

/** What the client hashed for the body. @throws ServiceError where a signed hash is not the body's. */
function payloadHash(request: SignedRequest): string {
  const said = request.headers["x-amz-content-sha256"];
  const actual = request.bodyDigest.toString("hex");
  if (said === undefined || said === actual) return actual;
  if (said === UNSIGNED) return UNSIGNED;
  throw denied("The signed hash of the body is not the body's.");
}

/**
 * @param now ms since the epoch.
 * @throws ServiceError AccessDeniedException unless the request is signed with these credentials.
 */
export function checkSignature(
  request: SignedRequest,
  credentials: Credentials,
  now: number,
): void {
  const { method, url, headers } = request;
  const parts = AUTHORIZATION.exec(headers.authorization ?? "");
  if (parts === null) throw denied("The request is not signed with signature version 4 for ebs.");
  const [, accessKeyId, day, region, signedHeaders, signature] = parts;
  if (accessKeyId !== credentials.accessKeyId) throw denied("The access key id is not known here.");
  const date = headers["x-amz-date"];
  if (typeof date !== "string" || !(Math.abs(parseDate(date) - now) <= MAX_SKEW)) {
    throw denied("The request's date is missing or too far from this server's clock.");
  }
  if (!date.startsWith(day!)) throw denied("The signature's day is not the request's.");
  const names = signedHeaders!.split(";");
  if (!names.includes("host")) throw denied("The signature does not cover the host.");
  const mark = url.indexOf("?");
  const path = mark < 0 ? url : url.slice(0, mark);
  const canonical = [
    method,
    path.split("/").map(encode).join("/"),
    mark < 0 ? "" : canonicalQuery(url.slice(mark + 1)),
    canonicalHeaders(names, headers),
    signedHeaders,
    payloadHash(request),
  ].join("\n");
  const scope = `${day}/${region}/ebs/aws4_request`;
  const digest = createHash("sha256").update(canonical).digest("hex");
  const dayKey = hmac(`AWS4${credentials.secretAccessKey}`, day!);
  const key = hmac(hmac(hmac(dayKey, region!), "ebs"), "aws4_request");
  const expected = hmac(key, `AWS4-HMAC-SHA256\n${date}\n${scope}\n${digest}`);
  if (!timingSafeEqual(expected, Buffer.from(signature!, "hex"))) {
    throw denied("The signature does not match the request.");
  }
}
