/** undici's transport keeps the contract. */
import { UndiciTransport } from "../../../src/http/undici/undici-transport.js";
import { transportConformance } from "../conformance/suite.js";

transportConformance("undici", (settings) => new UndiciTransport(settings));
