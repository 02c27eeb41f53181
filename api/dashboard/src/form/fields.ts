/** From JSON Schema to form fields: one source of truth for names, defaults, limits and help. */

export interface JsonSchema {
  type?: string;
  properties?: Record<string, JsonSchema>;
  anyOf?: JsonSchema[];
  allOf?: JsonSchema[];
  enum?: unknown[];
  const?: unknown;
  default?: unknown;
  description?: string;
  title?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  $ref?: string;
}

export interface FieldSpec {
  name: string;
  kind: "integer" | "number" | "boolean" | "choice" | "text" | "json";
  choices: string[];
  nullable: boolean;
  /** The default as text; empty for none. */
  fallback: string;
  help: string;
  min: number | undefined;
  max: number | undefined;
  /** Whether min and max themselves are out of range. */
  openMin: boolean;
  openMax: boolean;
}

export function asText(value: unknown): string {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function kindOf(schema: JsonSchema): FieldSpec["kind"] {
  if (schema.enum) return "choice";
  if (schema.type === "integer" || schema.type === "number" || schema.type === "boolean") return schema.type;
  return schema.type === "string" ? "text" : "json";
}

function toField(name: string, schema: JsonSchema): FieldSpec {
  const options = schema.anyOf ?? [schema];
  const inner = options.find((option) => option.type !== "null") ?? schema;
  return {
    name,
    kind: kindOf(inner),
    choices: (inner.enum ?? []).map(asText),
    nullable: options.some((option) => option.type === "null"),
    fallback: asText(schema.default),
    help: schema.description ?? inner.description ?? "",
    min: inner.minimum ?? inner.exclusiveMinimum,
    max: inner.maximum ?? inner.exclusiveMaximum,
    openMin: inner.minimum === undefined && inner.exclusiveMinimum !== undefined,
    openMax: inner.maximum === undefined && inner.exclusiveMaximum !== undefined,
  };
}

/** The fields of a flat object; constants (such as a method's `kind`) are not for the user to fill. */
export function fieldsOf(schema: JsonSchema, only?: readonly string[]): FieldSpec[] {
  return Object.entries(schema.properties ?? {})
    .filter(([name, property]) => property.const === undefined && (!only || only.includes(name)))
    .map(([name, property]) => toField(name, property));
}

export type Parsed = { value: unknown } | { wrong: string };

function parseNumber(field: FieldSpec, text: string): Parsed {
  const value = Number(text);
  if (!Number.isFinite(value)) return { wrong: "This is not a number." };
  if (field.kind === "integer" && !Number.isInteger(value)) return { wrong: "This must be a whole number." };
  const { min, max } = field;
  if (min !== undefined && (field.openMin ? value <= min : value < min)) {
    return { wrong: `This must be ${field.openMin ? "more than" : "at least"} ${min}.` };
  }
  if (max !== undefined && (field.openMax ? value >= max : value > max)) {
    return { wrong: `This must be ${field.openMax ? "less than" : "at most"} ${max}.` };
  }
  return { value };
}

/** What the user typed as a JSON value, or what is wrong with it. */
export function parse(field: FieldSpec, text: string): Parsed {
  if (text.trim() === "") {
    if (field.nullable) return { value: null };
    return field.kind === "text" ? { value: "" } : { wrong: "This needs a value." };
  }
  switch (field.kind) {
    case "integer":
    case "number":
      return parseNumber(field, text);
    case "boolean":
      return { value: text === "true" };
    case "json":
      try {
        return { value: JSON.parse(text) as unknown };
      } catch {
        return { wrong: "This must be JSON." };
      }
    case "choice":
    case "text":
      return { value: text };
  }
}
