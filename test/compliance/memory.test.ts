import { RouteConnection } from "#netlink/route";
import { MemoryKernel } from "../fakes/memory-kernel.js";
import { neighborsCompliance } from "./neighbors.js";
import { routesCompliance } from "./routes.js";
import { rulesCompliance } from "./rules.js";

const kernel = new MemoryKernel();
const open = () => new RouteConnection(kernel.open());

rulesCompliance("memory", open);
routesCompliance("memory", open);
neighborsCompliance("memory", open);
