# bash completion for xconnectd(8).
#
# Written by hand: a generator (shtab) would be one more thing to install at build time, and knows
# neither interfaces nor links. A unit test holds it to the options that the program really has.

_xconnectd() {
    local cur prev words cword
    _init_completion -n : 2>/dev/null || {
        cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
        words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
    }
    local -A options=(
        [run]='--config --strict --log-format --log-level --on-exit'
        [check]='--here'
        [plan]='--verbose --json --as'
        [status]='--config --verbose --json --watch --sort --filter --check --health'
        [graph]='--config --format'
        [test]='--config --json --count'
        [doctor]='--config --json'
        [wait]='--config --timeout'
        [try]='--timeout --as --yes'
        [link]='--config --try --mode --description'
        [reload]=''
        [events]='--json'
        [capture]='--write --direction --count --snaplen --buffer'
        [detach]='--all'
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
        --timeout | --count | --filter | --as | --snaplen | --buffer) return ;;
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${options[$command]:-} --help" -- "$cur")
        return
    fi
    case $command in
        link)
            local ends=(/sys/class/net/*)
            local actions='add remove enable disable move'
            [[ $cword -eq 2 ]] || actions="${ends[*]##*/}"
            mapfile -t COMPREPLY < <(compgen -W "$actions" -- "$cur")
            ;;
        check | plan | try) _xconnectd_files "$cur" ;;
        status | wait | detach | test | capture)
            # An end names its link. Interfaces as the kernel has them: no daemon need run.
            local interfaces=(/sys/class/net/*)
            mapfile -t COMPREPLY < <(compgen -W "${interfaces[*]##*/}" -- "$cur")
            ;;
    esac
}

_xconnectd_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(
        compgen -f -X '!*.yaml' -- "$1"
        compgen -d -- "$1"
    )
}

complete -F _xconnectd xconnectd
