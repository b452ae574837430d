/**
 * An error that the service answered, read from the wire as the SDK would have; in the same shape,
 * so that it is sorted the same way (trouble.ts). Source: AWS restJson1 protocol, "Operation error
 * serialization": the name is in x-amzn-errortype, or in the body's __type or code.
 */
import type { Exchange } from "./exchange.js";
import { isThrottle } from "./trouble.js";

/** Region and service in an authorization header. */
export const AUTHORIZATION_SCOPE = /Credential=[^/]+\/\d{8}\/([^/]+)\/([^/]+)\/aws4_request/;

/** Errors that are about the request itself, and not about who asks, when, or where. */
const JUDGED = new Set([
  "ValidationException",
  "ResourceNotFoundException",
  "ServiceQuotaExceededException",
  "ConflictException",
  "InternalServerException",
]);

export class ServiceAnswer extends Error {
  readonly Reason: string | undefined;
  readonly $metadata: { readonly httpStatusCode: number; readonly requestId?: string };

  private constructor(name: string, message: string, reason: string | undefined, of: Exchange) {
    super(message);
    this.name = name;
    this.Reason = reason;
    const requestId = of.headers["x-amzn-requestid"];
    this.$metadata = { httpStatusCode: of.status, ...(requestId !== undefined && { requestId }) };
  }

  /** @returns undefined where the SDK should judge. */
  static read(exchange: Exchange): ServiceAnswer | undefined {
    const body = fieldsOf(exchange.body);
    const type = exchange.headers["x-amzn-errortype"] ?? body.__type ?? body.code;
    const name = String(type ?? "Unknown")
      .replace(/:.*$/, "")
      .replace(/^.*#/, "");
    const { status } = exchange;
    if (!JUDGED.has(name) && !isThrottle(name, status) && status < 500) return undefined;
    const message = body.Message ?? body.message;
    const reason = typeof body.Reason === "string" ? body.Reason : undefined;
    return new ServiceAnswer(name, typeof message === "string" ? message : "", reason, exchange);
  }
}

function fieldsOf(body: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(Buffer.from(body).toString("utf8"));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
