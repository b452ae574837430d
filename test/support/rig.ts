/**
 * The whole product on one machine for an end-to-end test: a local endpoint in this process, and the
 * built command line in others, pointed at it and at a state folder of its own. With
 * EBSMOUNT_TEST_LIKE_AWS=1 the endpoint has the real service's habits (scripts/test-like-aws).
 */
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { open } from "node:fs/promises";
import { type Endpoint, type EndpointOptions, startEndpoint } from "../../src/server/endpoint.js";
import { CLI, must, type Ran, type RunOptions, run, Scratch } from "./scratch.js";

export class Rig {
  readonly scratch: Scratch;
  readonly endpoint: Endpoint;
  readonly env: Record<string, string>;

  static async start(options: Partial<EndpointOptions> = {}): Promise<Rig> {
    const scratch = new Scratch();
    const likeAws = process.env.EBSMOUNT_TEST_LIKE_AWS === "1";
    const endpoint = await startEndpoint({ store: scratch.file("store"), likeAws, ...options });
    scratch.undo(() => endpoint.close());
    return new Rig(scratch, endpoint);
  }

  private constructor(scratch: Scratch, endpoint: Endpoint) {
    this.scratch = scratch;
    this.endpoint = endpoint;
    this.env = {
      EBSMOUNT_ENDPOINT_URL: endpoint.url,
      EBSMOUNT_REGION: "us-east-1",
      EBSMOUNT_STATE_DIR: scratch.file("state"),
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
      AWS_EC2_METADATA_DISABLED: "true",
    };
  }

  run(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
    return run(process.execPath, [CLI, ...args], {
      ...options,
      env: { ...this.env, ...options.env },
    });
  }

  must(args: readonly string[], options: RunOptions = {}): Promise<string> {
    return must(process.execPath, [CLI, ...args], {
      ...options,
      env: { ...this.env, ...options.env },
    });
  }

  /** A sparse image file with random bytes at some places. @param pieces [offset, length]. @returns its path. */
  async image(name: string, size: number, ...pieces: [number, number][]): Promise<string> {
    const path = this.scratch.file(name);
    const file = await open(path, "w");
    await file.truncate(size);
    for (const [offset, length] of pieces) await file.write(randomBytes(length), 0, length, offset);
    await file.close();
    return path;
  }

  async import(file: string, ...args: string[]): Promise<string> {
    return (await this.must(["import", file, ...args])).trim();
  }

  /** Mounts in the background and makes sure that it ends with the test. @returns the mount point. */
  async mount(
    args: readonly string[],
    name = "mnt",
    env: Record<string, string> = {},
  ): Promise<string> {
    const place = this.scratch.file(name);
    mkdirSync(place, { recursive: true });
    this.scratch.undo(() => this.run(["unmount", "--lazy", place]));
    await this.must([...args, place], { env });
    return place;
  }

  clean(): Promise<void> {
    return this.scratch.clean();
  }
}
