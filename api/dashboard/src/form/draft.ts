/** The form's state, and the spec it stands for. Only what differs from a default is written into the spec. */

import type { Job, Method } from "../api/types";
import { asText, fieldsOf, parse } from "./fields";
import type { FieldSpec, JsonSchema } from "./fields";

/** Typed text by field name; a name that is absent has its default. */
export type Values = Record<string, string>;

export interface StageDraft {
  key: number;
  kind: string;
  values: Values;
}

export interface Draft {
  name: string;
  teacher: string;
  /** A dataset's name; empty for none. */
  data: string;
  /** One in a line; empty for none. */
  prompts: string;
  stages: StageDraft[];
  /** By group: "" holds the spec's own fields. */
  groups: Record<string, Values>;
}

/** A titled part of the spec's own schema. */
export interface Group {
  name: string;
  title: string;
  fields: FieldSpec[];
}

let keys = 0;

export function newStage(kind: string): StageDraft {
  keys += 1;
  return { key: keys, kind, values: {} };
}

export interface Built {
  spec: Record<string, unknown>;
  /** What is wrong, by JSON pointer into the form (stages are always a list there). */
  wrong: Record<string, string>;
}

function changed(fields: FieldSpec[], values: Values, at: string, wrong: Record<string, string>): Record<string, unknown> {
  const told: Record<string, unknown> = {};
  for (const field of fields) {
    const text = values[field.name];
    if (text === undefined || text === field.fallback) continue;
    const parsed = parse(field, text);
    if ("wrong" in parsed) wrong[`${at}/${field.name}`] = parsed.wrong;
    else told[field.name] = parsed.value;
  }
  return told;
}

export function build(draft: Draft, methods: Method[], groups: Group[]): Built {
  const wrong: Record<string, string> = {};
  const spec: Record<string, unknown> = {};
  if (draft.name.trim()) spec["name"] = draft.name.trim();
  spec["teacher"] = draft.teacher;
  if (draft.data) spec["data"] = draft.data;
  const prompts = draft.prompts.split("\n").map((line) => line.trim()).filter(Boolean);
  if (prompts.length > 0) spec["prompts"] = prompts;
  const chain = draft.stages.map((stage, i) => {
    const method = methods.find((m) => m.kind === stage.kind);
    const fields = method ? fieldsOf(method.json_schema as JsonSchema) : [];
    return { kind: stage.kind, ...changed(fields, stage.values, `/stages/${i}/method`, wrong) };
  });
  if (chain.length === 1) spec["method"] = chain[0];
  else spec["stages"] = chain.map((method) => ({ method }));
  for (const group of groups) {
    const at = group.name ? `/${group.name}` : "";
    const told = changed(group.fields, draft.groups[group.name] ?? {}, at, wrong);
    if (group.name === "") Object.assign(spec, told);
    else if (Object.keys(told).length > 0) spec[group.name] = told;
  }
  return { spec, wrong };
}

function texts(from: Record<string, unknown>, except: readonly string[]): Values {
  return Object.fromEntries(
    Object.entries(from)
      .filter(([name]) => !except.includes(name))
      .map(([name, value]) => [name, asText(value)]),
  );
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

/** The form filled with a job's spec. */
export function draftOf(spec: Job["spec"], groups: Group[]): Draft {
  const methods = spec.stages?.map((stage) => stage.method) ?? (spec.method ? [spec.method] : []);
  const all = record(spec);
  return {
    name: spec.name ?? "",
    teacher: spec.teacher,
    data: spec.data ?? "",
    prompts: spec.prompts?.join("\n") ?? "",
    stages: methods.map((method) => ({
      ...newStage(String(record(method)["kind"])),
      values: texts(record(method), ["kind"]),
    })),
    groups: Object.fromEntries(
      groups.map((group) => {
        const names = group.fields.map((field) => field.name);
        const from = group.name ? record(all[group.name]) : all;
        return [group.name, texts(Object.fromEntries(Object.entries(from).filter(([name]) => names.includes(name))), [])];
      }),
    ),
  };
}

/** A pointer of the server's into what was sent, as a pointer into the form. */
export function toFormPointer(pointer: string, kinds: readonly string[]): string {
  const parts = pointer.replace(/^#?\/?(body\/)?/, "").split("/");
  const at = parts.indexOf("method");
  if (at >= 0 && kinds.includes(parts[at + 1] ?? "")) parts.splice(at + 1, 1);
  if (parts[0] === "method") parts.unshift("stages", "0");
  return `/${parts.join("/")}`;
}
