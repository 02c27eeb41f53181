import { download } from "../api/client";
import type { Student } from "../api/types";
import { DownloadIcon } from "./icons";

/** The student's diffusers folder as a ZIP. */
export function DownloadStudent({ student }: { student: Student }) {
  return (
    <button type="button" className="button"
      onClick={() => void download(student.archive_url, `${student.name}.zip`)}>
      <DownloadIcon />
      Download
    </button>
  );
}
