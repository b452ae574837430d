/**
 * A session belongs to the place that it was started at: its parent, and the snapshot that it is being put
 * into, are there. So session.json names the endpoint that requests really went to, and later commands go
 * there whatever the environment says by then. Their options may name another place, as of a local endpoint
 * that now listens on another port; then what has been started must be known there as well.
 */
import { Failure } from "../common/failure.js";
import type { EbsApi } from "../ebs/api.js";
import { type ClientOptions, settledOptions } from "../ebs/client.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { isGone, isInvalid } from "../overlay/attempt.js";
import type { Session } from "../overlay/session.js";

type Place = Pick<ClientOptions, "region" | "profile" | "endpointUrl">;

/**
 * Notes where the session is from now on.
 * @param place as withSessionPlace gives it (session-options.ts).
 * @throws Failure EINVAL where the service there does not know the session's snapshot.
 */
export async function settlePlace(session: Session, api: EbsApi, place: Place): Promise<void> {
  const { context, upload } = session.record;
  const settled = await settledOptions(place);
  if (isSame(settled, context)) return;
  if (upload?.snapshotId !== undefined && !(await isKnown(api, upload.snapshotId))) {
    throw new Failure(
      "EINVAL",
      `Session ${session.id} is being put into ${upload.snapshotId} at ${nameOf(context)}, which ${nameOf(settled)} does not know: leave --endpoint-url, --region, --profile and their variables out.`,
    );
  }
  await session.update({ context: settled });
}

function isSame(a: Place, b: Place): boolean {
  const bare = (url: string | undefined) => url?.replace(/\/$/, "");
  return a.region === b.region && bare(a.endpointUrl) === bare(b.endpointUrl);
}

/** A snapshot that is not completed cannot be listed, but is known. */
async function isKnown(api: EbsApi, snapshotId: SnapshotId): Promise<boolean> {
  try {
    await api.listSnapshotBlocks(snapshotId, { maxResults: 100 });
    return true;
  } catch (error) {
    if (isGone(error)) return false;
    if (isInvalid(error)) return true;
    throw error;
  }
}

function nameOf({ region = "its default region", endpointUrl }: Place): string {
  return endpointUrl === undefined ? `AWS in ${region}` : `${endpointUrl} (${region})`;
}
