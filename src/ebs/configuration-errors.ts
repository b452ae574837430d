/**
 * What to do where credentials cannot be had. Mistakes on this machine (a missing file, an unknown profile)
 * are Failures and end at once, in trouble.ts. What is here failed on the way to those who give credentials:
 * that passes, or not, for the same reasons as a request to the service, but the sentence must name them.
 */
import type { CredentialsError } from "../aws/credentials.js";
import { HttpError } from "../http/http-error.js";
import type { Trouble } from "./trouble.js";

/** Retry classes that make sense for a request for credentials. */
const PASSING = new Set(["soon", "throttled", "slow", "unreachable", "credentials", "corrupt"]);

/** @param cause what would be done about the cause if a request to the service had met it. */
export function credentialsTrouble(error: CredentialsError, cause: Trouble): Trouble {
  const exception = error.cause instanceof HttpError ? cause.exception : error.name;
  if (error.passes) {
    return { verdict: "soon", errno: "ETIMEDOUT", sentence: `${error.message}.`, exception };
  }
  const advice = adviceFor(error.cause);
  const sentence = `${error.message}${advice}.`;
  if (!PASSING.has(cause.verdict))
    return { verdict: "fatal", errno: "EACCES", sentence, exception };
  const errno = cause.verdict === "credentials" ? "EACCES" : "ETIMEDOUT";
  return { verdict: cause.verdict, errno, sentence, exception };
}

function adviceFor(cause: unknown): string {
  if (!(cause instanceof HttpError)) return "";
  switch (cause.kind) {
    case "proxy":
      return "; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY";
    case "certificate":
      return "; check AWS_CA_BUNDLE and NODE_EXTRA_CA_CERTS";
    default:
      return "; check the network and the AWS configuration";
  }
}
