/**
 * The admin path, /_ebsmount/…, for tests and people on this machine: order faults, read the
 * statistics, make synthetic snapshots, remove a snapshot, see it as a volume. It answers to loopback addresses only,
 * whatever the endpoint listens on, and not to web pages (which send an Origin).
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { Failure } from "../common/failure.js";
import { MIB } from "../common/sizes.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { parseFaultRules } from "./fault-rule.js";
import type { Faults } from "./faults.js";
import { readBody } from "./request-body.js";
import { ServiceError } from "./service-error.js";
import type { EndpointStats } from "./stats-report.js";
import type { SyntheticSpec } from "./synthetic.js";
import { parseSyntheticSpec } from "./synthetic-spec.js";

export const ADMIN_PATH = "/_ebsmount/";

export interface AdminContext {
  readonly faults: Faults;
  readonly stats: () => EndpointStats;
  readonly resetStats: () => void;
  readonly createSynthetic: (spec: SyntheticSpec) => SnapshotId;
  readonly removeSnapshot: (snapshotId: string) => void;
  /** Sends a volume where the request asks for one; see volume-view.ts. */
  readonly sendVolume: (request: IncomingMessage, response: ServerResponse) => Promise<boolean>;
}

function isLoopback(address: string | undefined): boolean {
  return address !== undefined && /^(::ffff:)?127\.|^::1$/.test(address);
}

export async function handleAdmin(
  request: IncomingMessage,
  response: ServerResponse,
  context: AdminContext,
): Promise<void> {
  let status = 200;
  let answer: unknown;
  try {
    if (!isLoopback(request.socket.remoteAddress) || request.headers.origin !== undefined) {
      throw new ServiceError("AccessDeniedException", "The admin path is for this machine only.");
    }
    if (await context.sendVolume(request, response)) return;
    const body = await readBody(request, MIB);
    if (body === undefined) return;
    answer = act(request, Buffer.concat(body.parts).toString("utf8"), context);
  } catch (error) {
    request.resume();
    status = error instanceof ServiceError ? error.status : error instanceof Failure ? 400 : 500;
    answer = { error: (error as Error).message };
  }
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(`${JSON.stringify(answer, undefined, 1)}\n`);
}

function act(request: IncomingMessage, body: string, context: AdminContext): unknown {
  const [, , resource, item] = (request.url ?? "").split("/");
  const { faults } = context;
  switch (`${request.method} ${resource}`) {
    case "GET stats":
      return context.stats();
    case "DELETE stats":
      context.resetStats();
      return {};
    case "GET faults":
      return faults.list();
    case "POST faults":
      return { ids: faults.add(...parseFaultRules(parseJson(body))) };
    case "DELETE faults":
      if (item === undefined) faults.clear();
      else if (!faults.remove(Number(item))) {
        throw new ServiceError("NotFound", `There is no fault rule ${item}.`, undefined, 404);
      }
      return {};
    case "POST synthetic":
      return { snapshotId: context.createSynthetic(parseSyntheticSpec(parseJson(body))) };
    case "DELETE snapshots":
      context.removeSnapshot(item ?? "");
      return {};
    default:
      throw new ServiceError("UnknownOperationException", "Nothing is here.");
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Failure("EINVAL", `The body is not JSON: ${(cause as Error).message}.`, { cause });
  }
}
