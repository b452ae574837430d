/**
 * A session belongs to the service that it was begun with: its parent, and the snapshot that it is being
 * put into, are there. Options and the environment may say another place, as of a local endpoint that
 * now listens on another port; then what has been started must be known there as well.
 */
import { Failure } from "../common/failure.js";
import type { EbsApi } from "../ebs/api.js";
import { type ClientOptions, environmentEndpoint } from "../ebs/client.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { isGone, isInvalid } from "../overlay/attempt.js";
import type { Session } from "../overlay/session.js";

type Place = Pick<ClientOptions, "region" | "profile" | "endpointUrl">;

/**
 * Notes where the session is from now on.
 * @param place of the options, with the session's own where they say nothing.
 * @throws Failure EINVAL where the service there does not know the session's snapshot.
 */
export async function settlePlace(session: Session, api: EbsApi, place: Place): Promise<void> {
  const { context, upload } = session.record;
  const { region, profile, endpointUrl = environmentEndpoint() } = place;
  if (region === context.region && endpointUrl === context.endpointUrl) return;
  if (upload?.snapshotId !== undefined && !(await isKnown(api, upload.snapshotId))) {
    throw new Failure(
      "EINVAL",
      `Session ${session.id} is being put into ${upload.snapshotId} at ${nameOf(context)}, which ${nameOf({ region, endpointUrl })} does not know: leave --endpoint-url, --region and their variables out.`,
    );
  }
  await session.update({
    context: {
      ...(region !== undefined && { region }),
      ...(profile !== undefined && { profile }),
      ...(endpointUrl !== undefined && { endpointUrl }),
    },
  });
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

function nameOf({ region, endpointUrl }: Place): string {
  return endpointUrl ?? `AWS in ${region ?? "its default region"}`;
}
