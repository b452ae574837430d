/** What requests are signed with, and what is wrong where it cannot be had. */
import { Failure } from "../common/failure.js";

export interface AwsCredentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
  /** By the clock of who gave them. */
  readonly expiration?: Date;
  readonly accountId?: string;
}

/** A mistake on this machine: only the user can change it, so trying again does not help. */
export class CredentialsMistake extends Failure {
  override readonly name: string = "CredentialsMistake";

  /** @param message names the file, variable or profile, and says what to do. */
  constructor(message: string, options?: { cause?: unknown }) {
    super("EACCES", message, options);
  }
}

/** No source of credentials is configured at all. */
export class NoCredentials extends CredentialsMistake {
  override readonly name = "NoCredentials";
}

/** Who was asked for credentials did not give them. The cause decides whether that may pass. */
export class CredentialsError extends Error {
  override readonly name = "CredentialsError";
  /** It is known to pass, whatever the cause. */
  readonly passes: boolean;

  /** @param message a clause without an end mark that names who was asked, for which profile. */
  constructor(message: string, options: { cause: unknown; passes?: boolean }) {
    super(message, options);
    this.passes = options.passes ?? false;
  }
}

/** Printable ASCII: anything else could not be sent in a header. */
const SENDABLE = /^[\x21-\x7e]+$/;

/**
 * @param value of a key or token. @param from where it was found, to name it; the value itself is never shown.
 * @throws CredentialsMistake where it cannot be sent.
 */
export function checkSecret(value: string, from: string): string {
  if (SENDABLE.test(value)) return value;
  const what = FLAWS.find(([flaw]) => flaw.test(value))?.[1] ?? "is empty";
  throw new CredentialsMistake(`${from} ${what}; set it again, as it was given to you.`);
}

const FLAWS: readonly (readonly [RegExp, string])[] = [
  [/[\r\n]$/, "ends in a line break"],
  [/[\r\n]/, "holds a line break"],
  [/\p{Cc}/u, "holds a control character"],
  [/ /, "holds a space"],
  [/./s, "holds a character that is not ASCII"],
];
