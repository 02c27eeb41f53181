import { useMethods } from "../hooks/useMethods";
import { useTeachers } from "../hooks/useTeachers";

const STATUSES = ["queued", "starting", "running", "finishing", "paused", "succeeded", "failed", "cancelled"];

interface Props {
  values: { status: string | null; method: string | null; teacher: string | null };
  onChange: (changes: Record<string, string | null>) => void;
}

interface PickProps {
  label: string;
  all: string;
  value: string | null;
  options: string[];
  onPick: (value: string | null) => void;
}

function Pick({ label, all, value, options, onPick }: PickProps) {
  return (
    <select aria-label={label} value={value ?? ""} onChange={(event) => onPick(event.target.value || null)}>
      <option value="">{all}</option>
      {options.map((option) => <option key={option}>{option}</option>)}
    </select>
  );
}

export function JobFilters({ values, onChange }: Props) {
  const methods = useMethods()?.map((m) => m.kind) ?? [];
  const teachers = useTeachers()?.map((t) => t.name) ?? [];
  return (
    <div className="filters" role="search" aria-label="Filter jobs">
      <Pick label="Status" all="Any status" value={values.status} options={STATUSES}
        onPick={(status) => onChange({ status })} />
      <Pick label="Method" all="Any method" value={values.method} options={methods}
        onPick={(method) => onChange({ method })} />
      <Pick label="Teacher" all="Any teacher" value={values.teacher} options={teachers}
        onPick={(teacher) => onChange({ teacher })} />
    </div>
  );
}
