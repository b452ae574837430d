/** What the main thread and its block threads say to each other: numbers, ids, and shared memory. */
import type { WakeHandle } from "../http/curl/wake.js";
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

/** One try, into or from BLOCK_SIZE bytes at `offset` of a memory that the thread was given before. */
export interface BlockJob extends BlockRequest {
  readonly id: number;
  readonly memory: number;
  readonly offset: number;
}

export type ToThread =
  /** Sending shared memory costs more than a job, so each is sent once. */
  | { readonly kind: "memory"; readonly memory: number; readonly buffer: SharedArrayBuffer }
  /** For the jobs that come after it. */
  | { readonly kind: "context"; readonly context: SigningContext }
  /** All that came up in one turn of the event loop. */
  | { readonly kind: "jobs"; readonly jobs: readonly BlockJob[] }
  | { readonly kind: "abort"; readonly id: number }
  | { readonly kind: "close" };

/** Why a try failed; each is an error class's plain data. */
export type TryFailure =
  | { readonly kind: "http"; readonly details: HttpErrorDetails }
  | { readonly kind: "service"; readonly details: ServiceExceptionDetails }
  | { readonly kind: "response"; readonly details: AnswerErrorDetails }
  | { readonly kind: "defect"; readonly stack: string };

/** How a job ended: `digest` is the block's SHA-256. After it the thread touches the job's memory no more. */
export type JobEnd =
  | { readonly id: number; readonly digest: Uint8Array }
  | { readonly id: number; readonly failure: TryFailure };

export type FromThread =
  /** What wakes it, and where it says that it waits; undefined for undici. */
  | { readonly kind: "ready"; readonly wake: WakeHandle | undefined }
  | { readonly kind: "ends"; readonly ends: readonly JobEnd[] }
  /** So many bytes of this job's block have moved. */
  | { readonly kind: "progress"; readonly id: number; readonly bodyBytes: number };
