/** The errors of one try as plain data, for the way from one thread to another, and back. */
import { HttpError } from "../http/http-error.js";
import type { TryFailure } from "./block-thread-messages.js";
import { ServiceException } from "./service-exception.js";
import { AnswerError } from "./trouble.js";

export function packFailure(error: unknown): TryFailure {
  if (error instanceof HttpError) return { kind: "http", details: error.details() };
  if (error instanceof ServiceException) return { kind: "service", details: error.details() };
  if (error instanceof AnswerError) return { kind: "response", details: error.details() };
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { kind: "defect", stack };
}

export function unpackFailure(failure: TryFailure): Error {
  switch (failure.kind) {
    case "http":
      return new HttpError(failure.details);
    case "service":
      return new ServiceException(failure.details);
    case "response": {
      const { verdict, exception, message } = failure.details;
      return new AnswerError(verdict, exception, message);
    }
    case "defect":
      return new Error(`A defect in ebsmount: ${failure.stack}`);
  }
}
