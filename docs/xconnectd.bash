# bash completion for xconnectd(8).
#
# Written by hand, unlike those for zsh and fish: shtab's knows no word with a colon, as links have.
# A unit test holds it to the options that the program really has.

_xconnectd() {
    local cur prev words cword
    _init_completion -n : 2>/dev/null || {
        cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
        words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
    }
    local -A options=(
        [run]='--config --strict --log-format --log-level --on-exit --host'
        [check]='--here --host'
        [plan]='--verbose --json --as --host'
        [status]='--config --verbose --json --watch --sort --filter --check --health --host'
        [graph]='--config --format --host'
        [test]='--config --json --count --host'
        [doctor]='--config --json --host'
        [wait]='--config --timeout --host'
        [try]='--timeout --as --yes'
        [link]='--config --try --mode --one-way --mtu --rewrite --description'
        [impair]='--forward --reverse --for --clear'
        [reload]=''
        [events]='--json'
        [capture]='--write --plain --direction --count --snaplen --buffer --host'
        [detach]='--all'
        [import]=''
        [schema]=''
        [version]='--json'
    )
    local command=${words[1]:-}
    COMPREPLY=()
    if [[ $cword -eq 1 ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${!options[*]} --help" -- "$cur")
        return
    fi
    case $prev in
        -c | --config) _xconnectd_files "$cur" && return ;;
        --log-format) mapfile -t COMPREPLY < <(compgen -W 'console json' -- "$cur") && return ;;
        --log-level)
            mapfile -t COMPREPLY < <(compgen -W 'debug info warning error' -- "$cur") && return
            ;;
        -w | --write) compopt -o default 2>/dev/null; return ;;
        --direction) mapfile -t COMPREPLY < <(compgen -W 'a b both' -- "$cur") && return ;;
        --on-exit) mapfile -t COMPREPLY < <(compgen -W 'detach keep' -- "$cur") && return ;;
        --format) mapfile -t COMPREPLY < <(compgen -W 'mermaid dot svg' -- "$cur") && return ;;
        --sort) mapfile -t COMPREPLY < <(compgen -W 'state name rate drops' -- "$cur") && return ;;
        --timeout | --count | --mtu | --for | --filter | --as | --snaplen | --buffer) return ;;
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${options[$command]:-} --help" -- "$cur")
        return
    fi
    case $command in
        link)
            case $cword:${words[2]} in
                2:*) mapfile -t COMPREPLY < <(compgen -W 'add remove enable disable move' -- "$cur") ;;
                *:add) _xconnectd_interfaces "$cur" ;;
                *) _xconnectd_links "$cur" ;;
            esac
            ;;
        check | plan | try) _xconnectd_files "$cur" ;;
        import) _xconnectd_files "$cur" yml ;;
        status | wait | test | capture | impair) _xconnectd_links "$cur" ;;
        detach) _xconnectd_interfaces "$cur" ;;
    esac
}

_xconnectd_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(
        compgen -f -X "!*.${2:-yaml}" -- "$1"
        compgen -d -- "$1"
    )
}

# Interfaces as the kernel has them: no daemon need run.
_xconnectd_interfaces() {
    local interfaces=(/sys/class/net/*)
    mapfile -t COMPREPLY < <(compgen -W "${interfaces[*]##*/}" -- "$1")
}

# The links of the files by name and by their ends, and every interface: an end names its link.
_xconnectd_links() {
    local files=(/etc/xconnect.yaml /etc/xconnectd/*.yaml) interfaces=(/sys/class/net/*) names='' i
    for i in "${!words[@]}"; do
        [[ ${words[i]} != -c && ${words[i]} != --config ]] ||
            files=("${words[i + 1]:-}" "${words[i + 1]:-}"/*.yaml)
    done
    for i in "${!files[@]}"; do
        [[ -f ${files[i]} ]] || unset "files[i]"
    done
    [[ ${#files[@]} -eq 0 ]] || names=$(awk 'FNR == 1 || /^[^ #]/ { on = /^links:/; indent = 0 }
!on || /^[^ ]/ || /^ *(#|$)/ { next }
{
    sub(/ #.*/, ""); match($0, /^ +/); gsub(/["{},\047]/, " "); gsub(/:( |$)/, " "); b = ""
    if (!indent) indent = RLENGTH
    if (RLENGTH == indent) { a = $1; if (NF == 2) b = $2 }
    for (i = NF; i > 1; i--) if ($(i - 1) == "to" && (RLENGTH == indent || i == 2)) b = $i
    if (b != "") print a "\n" b "\n" a ((a b) ~ /:/ ? "," : ":") b
}' "${files[@]}" 2>/dev/null)
    # Readline completes behind a colon; bash-completion knows how to tell it less.
    declare -F __ltrim_colon_completions >/dev/null || names=$(grep -v : <<<"$names")
    mapfile -t COMPREPLY < <(compgen -W "$names ${interfaces[*]##*/}" -- "$1")
    ! declare -F __ltrim_colon_completions >/dev/null || __ltrim_colon_completions "$1"
}

complete -F _xconnectd xconnectd
