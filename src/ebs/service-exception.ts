/**
 * An error that the service responded with, read from the wire as the SDK would have; in the same shape,
 * so that it is classified the same way (trouble.ts). Source: AWS restJson1 protocol, "Operation error
 * serialization": the name is in x-amzn-errortype, or in the body's __type or code.
 */
import type { HttpResponse } from "../http/transport.js";

/** Plain data, so that it can go to another thread; `new ServiceException(details)` is the way back. */
export interface ServiceExceptionDetails {
  readonly name: string;
  readonly message: string;
  readonly reason: string | undefined;
  readonly status: number;
  readonly requestId: string | undefined;
  /** The service's clock: the response's Date header. */
  readonly date: string | undefined;
}

export class ServiceException extends Error {
  readonly Reason: string | undefined;
  readonly $metadata: {
    readonly httpStatusCode: number;
    readonly requestId?: string;
    clockSkewCorrected?: boolean;
  };
  readonly date: string | undefined;

  constructor({ name, message, reason, status, requestId, date }: ServiceExceptionDetails) {
    super(message);
    this.name = name;
    this.Reason = reason;
    this.date = date;
    this.$metadata = { httpStatusCode: status, ...(requestId !== undefined && { requestId }) };
  }

  details(): ServiceExceptionDetails {
    return {
      name: this.name,
      message: this.message,
      reason: this.Reason,
      status: this.$metadata.httpStatusCode,
      requestId: this.$metadata.requestId,
      date: this.date,
    };
  }

  /** @param response with a status of 300 or above. */
  static read({ status, headers, body }: HttpResponse): ServiceException {
    const fields = fieldsOf(body);
    const type = headers["x-amzn-errortype"] ?? fields.__type ?? fields.code;
    const name = String(type ?? "Unknown")
      .replace(/:.*$/, "")
      .replace(/^.*#/, "");
    const message = fields.Message ?? fields.message;
    return new ServiceException({
      name,
      message: typeof message === "string" ? message : "",
      reason: typeof fields.Reason === "string" ? fields.Reason : undefined,
      status,
      requestId: headers["x-amzn-requestid"],
      date: headers.date,
    });
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
