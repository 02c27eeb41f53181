import { get } from "../api/client";
import { usePoll } from "../hooks/usePoll";
import type { Group } from "./draft";
import { fieldsOf } from "./fields";
import type { JsonSchema } from "./fields";

interface OpenApi {
  components: { schemas: Record<string, JsonSchema> };
}

const OWN = [
  "seed", "aspect_buckets", "priority", "time_limit_minutes", "checkpoint_every", "preview_every", "max_failures",
] as const;

function schemaOf(document: OpenApi, name: string): JsonSchema {
  const { schemas } = document.components;
  return schemas[name] ?? schemas[`${name}-Input`] ?? {};
}

/** The spec's fields besides teacher and method, from the server's own OpenAPI document. */
export function useGroups(): Group[] | null {
  const { data } = usePoll("openapi", (signal) => get<OpenApi>("/openapi.json", signal), null);
  if (!data) return null;
  return [
    { name: "", title: "Run", fields: fieldsOf(schemaOf(data, "JobSpec"), OWN) },
    { name: "resources", title: "Resources", fields: fieldsOf(schemaOf(data, "Resources")) },
    { name: "compute", title: "Compute", fields: fieldsOf(schemaOf(data, "Compute")) },
    { name: "evaluation", title: "Evaluation", fields: fieldsOf(schemaOf(data, "Evaluation")) },
  ];
}
