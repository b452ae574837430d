/**
 * What the SDK would send, without sending it: it builds and signs a request, which is looked at instead. So
 * every way in which the SDK can be configured (endpoint, region, credentials) counts here as there.
 */
import { type EBSClient, GetSnapshotBlockCommand } from "@aws-sdk/client-ebs";
import type { SdkRequest } from "./request-handler.js";

class Captured extends Error {}

/** Region and service in an authorization header. */
const AUTHORIZATION = /Credential=([^/,\s]+)\/\d{8}\/([^/]+)\/([^/]+)\/aws4_request/;

export interface CapturedRequest {
  readonly request: SdkRequest;
  readonly accessKeyId: string;
  readonly region: string;
  readonly service: string;
}

/** The request of a get for CAPTURED_PATH. @throws what the SDK throws where it finds no region or credentials. */
export async function captureRequest(sdk: EBSClient): Promise<CapturedRequest> {
  const command = new GetSnapshotBlockCommand({
    SnapshotId: "snap-0",
    BlockIndex: 0,
    BlockToken: "AAAA",
  });
  let request: unknown;
  command.middlewareStack.add(
    () => async (args) => {
      request = args.request;
      throw new Captured();
    },
    { step: "deserialize", priority: "low", name: "ebsmountCapture" },
  );
  try {
    await sdk.send(command);
  } catch (error) {
    if (request === undefined) throw error;
  }
  const sent = request as SdkRequest;
  const header = sent.headers.authorization ?? sent.headers.Authorization ?? "";
  const signed = AUTHORIZATION.exec(header);
  if (signed === null) throw new Error("the SDK signs requests in a way that is not known");
  const [, accessKeyId, region, service] = signed as unknown as [string, string, string, string];
  return { request: sent, accessKeyId, region, service };
}

/** How the path of the captured request ends. */
export const CAPTURED_PATH = "/snapshots/snap-0/blocks/0";
