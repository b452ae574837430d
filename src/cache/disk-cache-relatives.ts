/**
 * Which other snapshots' blocks may serve for one snapshot: those of this mount, and those that were
 * mounted lately with the same folder. Nobody knows beforehand which of them are of its lineage; the
 * service is asked (disk-cache-lineage.ts), but only about a snapshot that has a block to offer. So
 * any number of strangers may have been mounted in between: they cost nothing until they offer
 * something, and one call each then. Who is there is asked again now and then, because another mount
 * may begin to fill the folder at any time.
 */
import type { EbsApi } from "../ebs/api.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { LineageDifference } from "./disk-cache-lineage.js";

/** Snapshots whose blocks are looked for at a time; the best known first. */
const MOST = 16;
/** How often the folder is asked who else was mounted, ms. */
const ASK_EVERY_MS = 10_000;

/** What of it all mounts of one service have in common. */
export interface Kinship {
  readonly api: Pick<EbsApi, "listChangedBlocks">;
  /** Other snapshots of this process. */
  siblings(of: SnapshotId): readonly SnapshotId[];
  /** Notes that a snapshot is in use, and gives others that lately were, latest first. */
  remember(snapshotId: SnapshotId): Promise<readonly SnapshotId[]>;
  /** The credentials may not compare snapshots at all. */
  onRefused(): void;
}

export class Relatives {
  readonly #kinship: Kinship;
  readonly #snapshotId: SnapshotId;
  readonly #volumeSizeGiB: number;
  readonly #known = new Map<SnapshotId, LineageDifference>();
  #remembered: readonly SnapshotId[] = [];
  #askedAt = Number.NEGATIVE_INFINITY;

  /** Resolves when the folder has been asked for the first time. */
  static async of(
    kinship: Kinship,
    snapshotId: SnapshotId,
    volumeSizeGiB: number,
  ): Promise<Relatives> {
    const relatives = new Relatives(kinship, snapshotId, volumeSizeGiB);
    await relatives.#ask();
    return relatives;
  }

  private constructor(kinship: Kinship, snapshotId: SnapshotId, volumeSizeGiB: number) {
    this.#kinship = kinship;
    this.#snapshotId = snapshotId;
    this.#volumeSizeGiB = volumeSizeGiB;
  }

  /** Those whose blocks to look for now: proven ones, then the mount's own, then the latest. */
  current(): LineageDifference[] {
    if (performance.now() - this.#askedAt > ASK_EVERY_MS) void this.#ask();
    const candidates = new Set([...this.#kinship.siblings(this.#snapshotId), ...this.#remembered]);
    const all = [...candidates].map((other) => this.#differenceTo(other));
    const usable = all.filter((difference) => difference.isUsable);
    const proven = usable.filter((difference) => difference.isProven);
    return [...new Set([...proven, ...usable])].slice(0, MOST);
  }

  #differenceTo(other: SnapshotId): LineageDifference {
    let difference = this.#known.get(other);
    if (difference === undefined) {
      const { api } = this.#kinship;
      difference = new LineageDifference(api, other, this.#snapshotId, this.#volumeSizeGiB, () =>
        this.#kinship.onRefused(),
      );
      this.#known.set(other, difference);
    }
    return difference;
  }

  async #ask(): Promise<void> {
    this.#askedAt = performance.now();
    this.#remembered = await this.#kinship.remember(this.#snapshotId);
  }
}
