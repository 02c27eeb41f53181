import type { JobSpec } from "../api/types";

function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => inner !== null)
      .map(([name, inner]) => [name, withoutNulls(inner)]),
  );
}

/** A spec as one would write it: without nulls, and with `method` for a single stage. */
export function short(spec: JobSpec): unknown {
  const { method, stages, ...rest } = spec;
  const only = method ?? (stages?.length === 1 ? stages[0]?.method : undefined);
  const { name, teacher, ...others } = rest;
  return withoutNulls({ name: name ?? null, teacher, ...(only ? { method: only } : { stages }), ...others });
}
