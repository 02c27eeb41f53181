import { useState } from "react";
import type { FormEvent } from "react";

import { ApiError, post } from "../api/client";
import type { Dataset, Job, Method, Teacher } from "../api/types";
import { PlusIcon } from "../components/icons";
import { Notice } from "../components/Notice";
import { Snippet } from "../components/Snippet";
import { navigate } from "../router";
import { DataFields } from "./DataFields";
import { build, newStage, toFormPointer } from "./draft";
import type { Draft, Group, StageDraft } from "./draft";
import { EstimateCard } from "./EstimateCard";
import { SchemaField } from "./SchemaField";
import { StageEditor } from "./StageEditor";
import { useValidation } from "./useValidation";

interface Props {
  initial: Draft;
  methods: Method[];
  teachers: Teacher[];
  datasets: Dataset[];
  groups: Group[];
}

const MOST_STAGES = 8;

export function JobForm({ initial, methods, teachers, datasets, groups }: Props) {
  const [draft, setDraft] = useState(initial);
  const [refused, setRefused] = useState<ApiError | null>(null);
  const [sending, setSending] = useState(false);

  const built = build(draft, methods, groups);
  const typed = Object.keys(built.wrong).length === 0;
  const text = JSON.stringify(built.spec, null, 2);
  const checked = useValidation(text, typed);

  const wrong = { ...built.wrong };
  const kinds = methods.map((m) => m.kind);
  if (checked.current) for (const { pointer, detail } of checked.errors) wrong[toFormPointer(pointer, kinds)] ??= detail;
  const shownAt = new Set([
    "/name",
    "/teacher",
    "/data",
    "/prompts",
    ...draft.stages.flatMap((_, i) => [`/stages/${i}/method`]),
    ...groups.flatMap((g) => g.fields.map((f) => `${g.name ? `/${g.name}` : ""}/${f.name}`)),
    ...Object.keys(wrong).filter((pointer) => pointer.startsWith("/stages/")),
  ]);
  const elsewhere = Object.entries(wrong).filter(([pointer]) => !shownAt.has(pointer));

  const setStage = (i: number, stage: StageDraft | null): void => {
    const stages = draft.stages.flatMap((old, j) => (j !== i ? [old] : stage ? [stage] : []));
    setDraft({ ...draft, stages });
  };
  const setValue = (group: string, name: string, value: string): void => {
    setDraft({ ...draft, groups: { ...draft.groups, [group]: { ...draft.groups[group], [name]: value } } });
  };
  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    setSending(true);
    setRefused(null);
    try {
      const job = await post<Job>("/v1/jobs", built.spec);
      navigate(`/jobs/${job.id}`);
    } catch (cause) {
      if (!(cause instanceof ApiError)) throw cause;
      setRefused(cause);
      setSending(false);
    }
  };

  return (
    <form className="split" onSubmit={(event) => void submit(event)} noValidate>
      <div className="stack">
        <section className="card" aria-label="Teacher and name">
          <div className="fields">
            <div className="field">
              <label htmlFor="teacher">Teacher</label>
              <select id="teacher" value={draft.teacher} aria-invalid={wrong["/teacher"] !== undefined}
                onChange={(event) => setDraft({ ...draft, teacher: event.target.value })}>
                {teachers.every((t) => t.name !== draft.teacher) && <option>{draft.teacher}</option>}
                {teachers.map((teacher) => <option key={teacher.id}>{teacher.name}</option>)}
              </select>
              {wrong["/teacher"] && <span className="wrong" role="alert">{wrong["/teacher"]}</span>}
              <span className="help">The pre-trained model whose samples the student shall match.</span>
            </div>
            <div className="field">
              <label htmlFor="name">Name</label>
              <input id="name" value={draft.name} placeholder="optional" aria-invalid={wrong["/name"] !== undefined}
                onChange={(event) => setDraft({ ...draft, name: event.target.value })} />
              {wrong["/name"] && <span className="wrong" role="alert">{wrong["/name"]}</span>}
              <span className="help">To find the job and its students by.</span>
            </div>
            <DataFields draft={draft} datasets={datasets} wrong={wrong} onChange={setDraft}
              text={teachers.some((teacher) => teacher.name === draft.teacher && teacher.text)} />
          </div>
        </section>
        {draft.stages.map((stage, i) => (
          <StageEditor key={stage.key} index={i} stage={stage} methods={methods} wrong={wrong}
            onChange={(next) => setStage(i, next)}
            onRemove={draft.stages.length > 1 ? () => setStage(i, null) : null} />
        ))}
        {draft.stages.length < MOST_STAGES && (
          <div className="row">
            <button type="button" className="button"
              onClick={() => setDraft({ ...draft, stages: [...draft.stages, newStage(kinds[0] ?? "")] })}>
              <PlusIcon />
              Add a stage
            </button>
            <span className="small quiet">A stage starts from the student of the one before it.</span>
          </div>
        )}
        {groups.map((group) => (
          <section key={group.name} className="card" aria-label={group.title}>
            <div className="card-head"><h2>{group.title}</h2></div>
            <div className="fields">
              {group.fields.map((field) => (
                <SchemaField key={field.name} field={field} value={draft.groups[group.name]?.[field.name]}
                  wrong={wrong[`${group.name ? `/${group.name}` : ""}/${field.name}`]}
                  onChange={(value) => setValue(group.name, field.name, value)} />
              ))}
            </div>
          </section>
        ))}
      </div>
      <div className="stack sticky">
        <EstimateCard validation={typed && checked.current ? checked.validation : null}
          pending={typed && !checked.current} />
        {elsewhere.map(([pointer, detail]) => (
          <div key={pointer} className="notice" role="alert">{pointer === "/" ? "" : `${pointer}: `}{detail}</div>
        ))}
        <Notice error={checked.failure} />
        <Notice error={refused} />
        <button type="submit" className="button primary" disabled={sending || !checked.current || !checked.validation}>
          Submit the job
        </button>
        <Snippet text={text} label="The spec" />
      </div>
    </form>
  );
}
