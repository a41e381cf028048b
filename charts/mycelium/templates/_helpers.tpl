{{- define "mycelium.labels" -}}
app.kubernetes.io/name: mycelium
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "mycelium.operator.selector" -}}
app.kubernetes.io/name: mycelium
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "mycelium.devchain.selector" -}}
app.kubernetes.io/name: mycelium
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: devchain
{{- end }}

{{- define "mycelium.operator.name" -}}
{{ .Release.Name }}-operator
{{- end }}

{{- define "mycelium.devchain.name" -}}
{{ .Release.Name }}-devchain
{{- end }}

{{/* Image reference of (dict "image" IMAGE "root" $). */}}
{{- define "mycelium.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* What every container of this chart may do: nothing special. */}}
{{- define "mycelium.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "mycelium.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end }}
