/**
 * A session over a small base, with what a commit needs: its device, the background's upload, a service
 * in memory, and the model of what the snapshot must show.
 */
import { test as base } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import type { CommitOptions, CommitResult } from "../../src/overlay/commit-options.js";
import { commit } from "../../src/overlay/committer.js";
import { OverlayDevice } from "../../src/overlay/overlay-device.js";
import { createSession, openSession, type Session } from "../../src/overlay/session.js";
import { Upload } from "../../src/overlay/upload.js";
import { ReadOnlyMemoryDevice } from "../support/memory-device.js";
import { Scratch } from "../support/scratch.js";
import { FakeEbs, type FakeSnapshot } from "./fake-ebs.js";
import { VolumeModel } from "./volume-model.js";

export const PARENT = "snap-0000aaaa";
const BASE_BLOCKS = 6;
/** What the base has in each byte of a block that is not a hole. */
export const BASE_BYTE = 0xba;
/** Blocks of the base that were never written. */
const HOLES = [2, 3];
const OPTIONS = { takesDiscards: true };

export class WrittenVolume {
  readonly api = new FakeEbs();
  readonly base: ReadOnlyMemoryDevice;
  session!: Session;
  device!: OverlayDevice;
  readonly #scratch: Scratch;
  readonly #model: VolumeModel;
  #upload: Upload | undefined;
  #isOpen = false;

  /** The volume is of 1 GiB, larger than its base: what is behind that are zeros. */
  static async begin(scratch: Scratch): Promise<WrittenVolume> {
    const volume = new WrittenVolume(scratch);
    volume.session = await createSession(scratch.path, {
      kind: "rw",
      volumeSizeGiB: 1,
      parentSnapshotId: PARENT,
      commit: { description: "test", tags: [{ key: "a", value: "b" }], timeoutMinutes: 10 },
    });
    volume.device = await OverlayDevice.open(volume.session, volume.base, OPTIONS);
    volume.#isOpen = true;
    scratch.undo(() => volume.close());
    return volume;
  }

  private constructor(scratch: Scratch) {
    this.#scratch = scratch;
    const bytes = Buffer.alloc(BASE_BLOCKS * BLOCK_SIZE, BASE_BYTE);
    for (const hole of HOLES) bytes.fill(0, hole * BLOCK_SIZE, (hole + 1) * BLOCK_SIZE);
    this.base = new ReadOnlyMemoryDevice(bytes);
    this.api.inherited = [0, 1, 2, 3, 4, 5].filter((block) => !HOLES.includes(block));
    this.#model = new VolumeModel(bytes);
  }

  async write(offset: number, length: number, byte: number): Promise<void> {
    await this.device.write(offset, Buffer.alloc(length, byte));
    this.#model.fill(offset, length, byte);
  }

  async zero(offset: number, length: number): Promise<void> {
    await this.device.zero(offset, length);
    this.#model.fill(offset, length, 0);
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.device.discard(offset, length);
    this.#model.discard(offset, length);
  }

  /** What the mount's background does; a commit from now on goes on with it. */
  async openUpload(concurrency?: number): Promise<Upload> {
    this.#upload = await Upload.open(this.session, this.device, this.api, concurrency);
    return this.#upload;
  }

  commit(options: CommitOptions = {}): Promise<CommitResult> {
    const upload = this.#upload && { upload: this.#upload };
    return commit(this.session, this.device, this.api, { ...upload, ...options });
  }

  /** Blocks at which the snapshot does not show what was written; without one, at which there should be one. */
  differences(snapshot: FakeSnapshot | undefined): number[] {
    return this.#model.differences(snapshot ?? { ...ANY_SNAPSHOT, blocks: new Map() });
  }

  /** As another process would, after this one. */
  async reopen(): Promise<void> {
    const { id } = this.session;
    await this.close();
    this.session = await openSession(this.#scratch.path, id);
    this.device = await OverlayDevice.open(this.session, this.base, OPTIONS);
    this.#isOpen = true;
  }

  /** May be called again. */
  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#upload?.close();
    this.#upload = undefined;
    await this.device.close();
    await this.session.close();
  }
}

/** A test with a volume of its own, and where that lies; both are gone after it. */
export const test = base.extend<{ scratch: Scratch; volume: WrittenVolume }>({
  scratch: async ({ task: _task }, use) => {
    const scratch = new Scratch();
    await use(scratch);
    await scratch.clean();
  },
  volume: async ({ scratch }, use) => use(await WrittenVolume.begin(scratch)),
});

const ANY_SNAPSHOT: FakeSnapshot = {
  id: "snap-0" as FakeSnapshot["id"],
  status: "completed",
  token: "",
  volumeSizeGiB: 1,
  parent: undefined,
  blocks: new Map(),
  completesIn: undefined,
};
