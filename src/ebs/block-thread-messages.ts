/** What the main thread and its block threads say to each other: numbers, ids, and shared memory. */
import type { HttpErrorDetails } from "../http/http-error.js";
import type { TransportSettings } from "../http/transport.js";
import type { BlockRequest } from "./block-request.js";
import type { ServiceExceptionDetails } from "./service-exception.js";
import type { SigningContext } from "./signature.js";
import type { AnswerErrorDetails } from "./trouble.js";

/** What a block thread is started with. */
export interface ThreadSetup {
  readonly settings: TransportSettings;
}

/** One try, into or from BLOCK_SIZE bytes of `buffer` at `offset`. */
export interface BlockJob extends BlockRequest {
  readonly id: number;
  readonly buffer: SharedArrayBuffer;
  readonly offset: number;
}

export type ToThread =
  | BlockJob
  | { readonly kind: "abort"; readonly id: number }
  /** For the jobs that come after it. */
  | { readonly kind: "context"; readonly context: SigningContext }
  | { readonly kind: "close" };

/** Why a try failed; each is an error class's plain data. */
export type TryFailure =
  | { readonly kind: "http"; readonly details: HttpErrorDetails }
  | { readonly kind: "service"; readonly details: ServiceExceptionDetails }
  | { readonly kind: "response"; readonly details: AnswerErrorDetails }
  | { readonly kind: "defect"; readonly stack: string };

export type FromThread =
  /** The address that wakes it, and where a message for it is counted first; none for undici. */
  | {
      readonly kind: "ready";
      readonly multi: bigint | undefined;
      readonly mail: Int32Array | undefined;
    }
  /** After it the thread touches the job's memory no more. */
  | { readonly kind: "done"; readonly id: number; readonly digest: Uint8Array }
  | { readonly kind: "failed"; readonly id: number; readonly failure: TryFailure }
  /** Bytes of these jobs have moved. */
  | { readonly kind: "progress"; readonly id: number };
