/**
 * Makes the SDK's client: region, credentials and endpoint from its own chain, with what the user
 * gave on top. Two conveniences for endpoints that are not AWS: a region is not asked for where an
 * endpoint URL is given, and an endpoint on loopback gets placeholder credentials where there are
 * none, so that a first try needs no account.
 */
import "./quiet-sdk.js";
import { EBSClient, type EBSClientConfig } from "@aws-sdk/client-ebs";
import { EbsHttpHandler } from "./http-handler.js";

export interface ClientOptions {
  readonly region?: string;
  readonly profile?: string;
  readonly endpointUrl?: string;
  /** Connections at most. */
  readonly sockets: number;
}

/** The SDK's client and the request handler that it sends through. */
export interface Client {
  readonly sdk: EBSClient;
  readonly handler: EbsHttpHandler;
}

/**
 * @param expired the client that this one takes the place of, with its connections: credentials are taken
 * anew from their source, past what the SDK remembers of files. It must not be closed any more.
 */
export function makeClient(options: ClientOptions, expired?: Client): Client {
  const endpoint = options.endpointUrl ?? environmentEndpoint();
  const handler = expired?.handler ?? new EbsHttpHandler(options.sockets);
  const given: EBSClientConfig = {
    maxAttempts: 1,
    logger: SILENT,
    requestHandler: handler as never,
    ...(options.profile !== undefined && { profile: options.profile }),
    ...(options.endpointUrl !== undefined && { endpoint: options.endpointUrl }),
    ...(options.region !== undefined && { region: options.region }),
  };
  // The SDK's defaults can be had from a client only, so one is made to ask them of.
  const { config } = new EBSClient(given);
  const chain = config.credentialDefaultProvider({
    ...config,
    parentClientConfig: config,
    ...(expired !== undefined && { ignoreCache: true }),
  } as Parameters<typeof config.credentialDefaultProvider>[0]);
  const region = async (): Promise<string> => {
    try {
      return await config.region();
    } catch (error) {
      if (endpoint !== undefined) return "us-east-1";
      throw error;
    }
  };
  const credentials: EBSClientConfig["credentials"] = async (identity) => {
    try {
      return await chain(identity);
    } catch (error) {
      const isLocal = endpoint !== undefined && isLoopback(endpoint);
      // Of a profile that was asked for by name, a mistake must be heard of.
      if (isLocal && options.profile === undefined) return PLACEHOLDER;
      throw error;
    }
  };
  return { sdk: new EBSClient({ ...given, region, credentials }), handler };
}

/** The SDK's own words (that a profile wins over keys, …) are no sentence of ours. */
const SILENT = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

/**
 * Where requests go with these options now, as options that say it in full: what is found in the
 * environment and the profile today may be another tomorrow. No secrets.
 */
export async function settledOptions(
  options: Omit<ClientOptions, "sockets">,
): Promise<Record<string, string>> {
  const profile = options.profile ?? (process.env.AWS_PROFILE || undefined);
  const endpointUrl = options.endpointUrl ?? environmentEndpoint();
  const { sdk } = makeClient({ ...options, sockets: 1 });
  try {
    const region = await sdk.config.region();
    return {
      region,
      ...(profile !== undefined && { profile }),
      ...(endpointUrl !== undefined && { endpointUrl }),
    };
  } finally {
    sdk.destroy();
  }
}

/** Accepted by a local endpoint that was not told to check signatures; worthless anywhere else. */
const PLACEHOLDER = { accessKeyId: "local", secretAccessKey: "local" };

/** Where requests go, for sentences; undefined for AWS itself. */
export function environmentEndpoint(): string | undefined {
  return process.env.AWS_ENDPOINT_URL_EBS || process.env.AWS_ENDPOINT_URL || undefined;
}

function isLoopback(url: string): boolean {
  try {
    const { hostname } = new URL(url);
    return hostname === "localhost" || hostname === "[::1]" || hostname.startsWith("127.");
  } catch {
    return false;
  }
}
