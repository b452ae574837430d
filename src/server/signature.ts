/**
 * Checks AWS signature version 4 of a request, when the endpoint was given credentials to check
 * against. The canonical request is rebuilt from what arrived; the body's hash is the one that was
 * signed: UNSIGNED-PAYLOAD where the client says so, else the hash of the body itself, so a body
 * changed on its way is refused too. A refusal bears the name that AWS gives it, for clients act on
 * it: an unknown key is not a wrong secret, and a wrong clock can be corrected. Sources: AWS General
 * Reference, "Signature Version 4 signing"; "Common errors" of any service's API reference (403 for
 * all of these); aws-sdk-js#254 and botocore#3587 for the words about clocks.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { ServiceError } from "./service-error.js";

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Of temporary credentials, which are refused without it; others are refused with one. */
  readonly sessionToken?: string;
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
  /^AWS4-HMAC-SHA256 Credential=([^/,\s]+)\/(\d{8})\/([^/,\s]+)\/([^/,\s]+)\/aws4_request,\s*SignedHeaders=([a-z0-9;_-]+),\s*Signature=([0-9a-f]{64})$/;
/** Largest difference between the clocks of client and server; as the service's own. */
const MAX_SKEW_MINUTES = 5;
const UNSIGNED = "UNSIGNED-PAYLOAD";

const badSignature = (why: string) => new ServiceError("InvalidSignatureException", why);
const incomplete = (why: string) => new ServiceError("IncompleteSignatureException", why);

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
  throw badSignature("The signed hash of the body is not the body's.");
}

/** `20261124T041500Z`. */
function formatDate(ms: number): string {
  return new Date(ms).toISOString().replace(/[-:]|\.\d+/g, "");
}

/**
 * Refuses a request whose x-amz-date is too far from this server's clock, in AWS's words.
 * @param now ms since the epoch. @param name of the exception.
 * @throws ServiceError
 */
export function checkClock(
  headers: IncomingHttpHeaders,
  now: number,
  name = "InvalidSignatureException",
): void {
  const date = headers["x-amz-date"];
  const then = typeof date === "string" ? parseDate(date) : Number.NaN;
  if (Number.isNaN(then)) throw incomplete("The request has no x-amz-date, or a malformed one.");
  const [limit, server] = [MAX_SKEW_MINUTES * 60_000, formatDate(now)];
  if (then < now - limit) {
    const earliest = formatDate(now - limit);
    const why = `${date} is now earlier than ${earliest} (${server} - ${MAX_SKEW_MINUTES} min.)`;
    throw new ServiceError(name, `Signature expired: ${why}`);
  }
  if (then > now + limit) {
    const latest = formatDate(now + limit);
    const why = `${date} is still later than ${latest} (${server} + ${MAX_SKEW_MINUTES} min.)`;
    throw new ServiceError(name, `Signature not yet current: ${why}`);
  }
}

/**
 * @param now ms since the epoch.
 * @throws ServiceError unless the request is signed with these credentials:
 * MissingAuthenticationTokenException, IncompleteSignatureException, UnrecognizedClientException or
 * InvalidSignatureException
 */
export function checkSignature(
  request: SignedRequest,
  credentials: Credentials,
  now: number,
): void {
  const { method, url, headers } = request;
  const { authorization } = headers;
  if (authorization === undefined) {
    throw new ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token");
  }
  const parts = AUTHORIZATION.exec(authorization);
  if (parts === null) throw incomplete("The authorization header is not one of AWS4-HMAC-SHA256.");
  const [, accessKeyId, day, region, service, signedHeaders, signature] = parts;
  if (
    accessKeyId !== credentials.accessKeyId ||
    headers["x-amz-security-token"] !== credentials.sessionToken
  ) {
    throw new ServiceError(
      "UnrecognizedClientException",
      "The security token included in the request is invalid.",
    );
  }
  if (service !== "ebs")
    throw badSignature("Credential should be scoped to correct service: 'ebs'.");
  checkClock(headers, now);
  const date = String(headers["x-amz-date"]);
  if (!date.startsWith(day!)) throw badSignature("The credential's day is not that of x-amz-date.");
  const names = signedHeaders!.split(";");
  if (!names.includes("host")) throw badSignature("'Host' must be a signed header.");
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
    throw badSignature(
      "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.",
    );
  }
}
